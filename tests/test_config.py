"Settings that are refused, what is built from them, and files that claim too much."
import math
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mnist_folder import write_digits

from fcnet import config
from fcnet.accelerate import BFloat16Linear, Precision
from fcnet.checkpoint import load, save
from fcnet.classify import CrossEntropy, OneHotMSE
from fcnet.config import (OLDER, Settings, build_callbacks, build_learner, build_loss,
                          build_model, build_optimizer, check_memory, hidden_sizes,
                          load_model, normalized_data, picture_fault, resume_training)
from fcnet.data import Data, get_data
from fcnet.layers import Linear, Sequential
from fcnet.nn_module import MLP
from fcnet.optim import SGD, Adam, AdamW

NAMES = [field.name for field in fields(Settings)]

@pytest.fixture(scope='module')
def raw():
    "MNIST as it is in its files."
    return get_data()

@pytest.fixture
def folder(raw, tmp_path):
    "120 digits in MNIST's form: 100 to learn from, 20 for validation."
    write_digits(tmp_path/'few', raw.x_train[:120], raw.y_train[:120])
    return str(tmp_path/'few')

def names(things): return [type(thing).__name__ for thing in things]

# ---- Settings

@pytest.mark.parametrize('bad', [None, [], {}, 'x', float('nan'), math.inf, -math.inf])
@pytest.mark.parametrize('name', NAMES)
def test_a_setting_of_the_wrong_type_is_named(name, bad):
    if name == 'data' and (bad is None or bad == 'x'): return # those are fine
    with pytest.raises(ValueError, match=f'{name} is '): Settings(**{name: bad})

@pytest.mark.parametrize('name', [name for name in NAMES if name != 'hidden'])
def test_true_is_a_switch_not_a_number_or_a_name(name):
    if name in ('residual', 'distort', 'whole', 'fuse'):
        assert getattr(Settings(**{name: True}), name) is True
    else:
        with pytest.raises(ValueError, match=f'{name} is True, expected type'):
            Settings(**{name: True})

@pytest.mark.parametrize('name, value', [
    ('residual', 1), ('whole', 0), ('epochs', 3.), ('bs', 64.), ('seed', 0.),
    ('lr', np.float32(0.1)), ('epochs', np.int64(3)), ('data', Path('x'))])
def test_types_that_are_close_are_refused(name, value):
    with pytest.raises(ValueError, match=f'{name} is .*, expected type'):
        Settings(**{name: value})

@pytest.mark.parametrize('name, value, expected', [
    ('lr', -1., 'above 0'), ('lr', 0., 'above 0'),
    ('bs', 0, 'an integer, at least 1'), ('epochs', 0, 'an integer, at least 1'),
    ('seed', -1, 'at least 0 and below 9223372036854775808'),
    ('seed', 2**63, 'at least 0 and below 9223372036854775808'),
    ('model', 'keras', 'one of handmade, torch'),
    ('norm', 'batchnorm', 'one of none, batch, layer'),
    ('loss', 'hinge', 'one of entropy, mse'),
    ('opt', 'magic', 'one of sgd, adam, adamw'),
    ('precision', 'low', 'one of auto, highest, high, medium, bf16'),
    ('smoothing', 1., 'at least 0 and below 1'),
    ('dropout', 1., 'at least 0 and below 1'),
    ('dropout', -0.1, 'at least 0 and below 1'),
    ('average', 1., 'at least 0 and below 1'),
    ('decay', -1e-9, 'at least 0'), ('max_norm', -1., 'at least 0'),
    ('affine', -1., 'at least 0'), ('elastic', -1., 'at least 0'),
    ('noise', -1., 'at least 0'), ('adversarial', -1., 'at least 0')])
def test_a_setting_out_of_range_is_refused(name, value, expected):
    with pytest.raises(ValueError) as error: Settings(**{name: value})
    assert str(error.value) == f'Settings: {name} is {value!r}, expected {expected}'

@pytest.mark.parametrize('name, value', [
    ('lr', 1), ('lr', 1e-9), ('bs', 1), ('epochs', 1), ('seed', 2**63-1), ('seed', 0),
    ('smoothing', 0), ('smoothing', 0.999), ('dropout', 0.999), ('average', 0.999),
    ('affine', 0), ('elastic', 0.), ('noise', 1e9), ('loss', 'mse'), ('opt', 'adam'),
    ('opt', 'adamw'), ('norm', 'layer'), ('norm', 'batch'), ('precision', 'high'),
    ('precision', 'medium'), ('precision', 'bf16'), ('model', 'torch'), ('data', 'x')])
def test_a_setting_at_the_end_of_its_range_is_kept(name, value):
    assert getattr(Settings(**{name: value}), name) == value

@pytest.mark.parametrize('hidden', ['', '0', '30,-1', '30,x', '1.5', '99999999', '3,,4',
                                    '100001', 'None'])
def test_hidden_units_that_cannot_be(hidden):
    expected = ("Settings: hidden is '.*', expected sizes from 1 to 100000 such as "
                "300,100, or none")
    with pytest.raises(ValueError, match=expected): Settings(hidden=hidden)

@pytest.mark.parametrize('hidden, sizes', [
    ('300,100', [300, 100]), ('none', []), ('1', [1]), ('100000', [100_000]),
    ('30, 20', [30, 20])])
def test_hidden_sizes(hidden, sizes):
    assert hidden_sizes(hidden) == sizes

def test_hidden_may_be_a_number():
    assert Settings(hidden=300).hidden == '300'

@pytest.mark.parametrize('name, value', [
    ('norm', 'batch'), ('norm', 'layer'), ('residual', True), ('loss', 'mse'),
    ('smoothing', 0.1), ('adversarial', 1.)])
def test_what_only_our_own_layers_have(name, value):
    words = f'{name} is of our own layers, model is torch'
    with pytest.raises(ValueError, match=words):
        Settings(model='torch', **{name: value})

def test_batch_normalization_and_averages_do_not_go_together():
    with pytest.raises(ValueError, match='average goes with norm none or layer'):
        Settings(norm='batch', average=0.9)
    Settings(norm='layer', average=0.9)

def test_settings_go_through_a_dictionary():
    s = Settings(hidden='30', lr=0.1, distort=True)
    assert Settings(**asdict(s)) == s

# ---- the network

@pytest.mark.parametrize('model', ['handmade', 'torch'])
def test_weights_come_from_the_generator_and_the_last_layer_starts_small(model):
    g = torch.Generator().manual_seed(3)
    one = build_model([20, 900, 5], model, 0.5, g)
    two = build_model([20, 900, 5], model, 0.5, torch.Generator().manual_seed(3))
    for p, q in zip(one.parameters(), two.parameters()): assert torch.equal(p, q)
    assert 0.019 < list(two.parameters())[-2].std() < 0.021
    if model == 'handmade': assert one.layers[2].generator is g

def test_where_norms_shortcuts_and_dropout_are():
    plain = build_model([4, 5, 5, 3])
    assert isinstance(plain, Sequential)
    assert names(plain.layers) == ['Linear', 'ReLU', 'Linear', 'ReLU', 'Linear']
    helped = build_model([4, 5, 5, 5, 3], norm='layer', dropout=0.1, residual=True)
    assert names(helped.layers) == ['Linear', 'LayerNorm', 'ReLU', 'Dropout',
                                    'Residual', 'Residual', 'Linear']
    inner = build_model([4, 5, 5, 3], norm='batch', residual=True).layers[3].layers
    assert names(inner) == ['Linear', 'BatchNorm', 'ReLU']
    assert names(build_model([4, 4]).layers) == ['Linear']
    assert helped.layers[3].p == 0.1

def test_bfloat16_is_in_every_linear_layer():
    model = build_model([4, 5, 5, 3], residual=True, precision='bf16')
    kinds = [type(layer) for layer in model.modules() if isinstance(layer, Linear)]
    assert kinds == [BFloat16Linear]*3
    for precision in ('highest', 'high', 'medium'):
        model = build_model([4, 5, 3], precision=precision)
        assert type(model.layers[0]) is Linear

def test_a_network_of_pytorch_ignores_what_it_does_not_have():
    model = build_model([4, 5, 3], 'torch', 0.2, norm='layer', residual=True,
                        precision='bf16')
    assert isinstance(model, MLP)
    assert [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] == [0.2]

@pytest.mark.parametrize('wrong, words', [
    (dict(model='pytorch'),
     "build_model: model is 'pytorch', expected one of handmade"),
    (dict(norm='batchnorm'), "build_model: norm is 'batchnorm', expected one of none")])
def test_a_network_that_cannot_be_described(wrong, words):
    with pytest.raises(ValueError, match=words): build_model([4, 3, 2], **wrong)

@pytest.mark.parametrize('sizes', [[4], []])
def test_a_network_has_inputs_and_outputs(sizes):
    with pytest.raises(ValueError, match='sizes is .*, expected two or more'):
        build_model(sizes)

# ---- loss, optimizer, callbacks

def test_losses():
    assert build_loss(Settings(model='torch')) is F.cross_entropy
    assert type(build_loss(Settings(loss='mse'))) is OneHotMSE
    loss = build_loss(Settings(smoothing=0.1))
    assert type(loss) is CrossEntropy and loss.label_smoothing == 0.1
    assert build_loss(Settings()).label_smoothing == 0

@pytest.mark.parametrize('opt, kind', [('sgd', SGD), ('adam', Adam), ('adamw', AdamW)])
def test_optimizers(opt, kind):
    model = build_model([4, 3, 2])
    found = build_optimizer(Settings(opt=opt, lr=0.3, decay=0.2), model)
    assert type(found) is kind
    assert [g['weight_decay'] for g in found.param_groups] == [0.2, 0.]
    assert [g['lr'] for g in found.param_groups] == [0.3, 0.3]
    assert [p.dim() for g in found.param_groups for p in g['params']] == [2, 2, 1, 1]
    if opt == 'sgd': assert found.param_groups[0]['momentum'] == 0.9

def test_settings_that_are_off_add_no_callback():
    g = torch.Generator()
    assert build_callbacks(Settings(fuse=False), g) == []
    for changes in (dict(precision='bf16'), dict(model='torch')): # these have no plan
        assert build_callbacks(Settings(**changes), g) == []

def test_callbacks_and_their_order():
    g = torch.Generator()
    s = Settings(distort=True, affine=2., elastic=0, noise=0.4, adversarial=0.7,
                 max_norm=2., average=0.9, precision='medium')
    callbacks = build_callbacks(s, g)
    assert names(callbacks) == ['Fuse', 'Distort', 'Noise', 'Adversarial', 'MaxNorm',
                                'EMA']
    fuse, distort, noise, adversarial, max_norm, average = callbacks
    assert distort.settings == dict(rotate=20., scale=0.2, shear=0.2, shift=2., alpha=0)
    assert distort.generator is g and noise.generator is g
    assert [noise.std, adversarial.eps, max_norm.limit] == [0.4, 0.7, 2.]
    assert [average.decay, fuse.precision] == [0.9, 'medium']

def test_precision_is_a_callback_where_the_layers_do_not_have_it():
    g = torch.Generator()
    for precision in ('high', 'medium'):
        found, = build_callbacks(Settings(precision=precision, fuse=False), g)
        assert isinstance(found, Precision) and found.precision == precision
    assert build_callbacks(Settings(fuse=False), g) == []
    torch_model = Settings(model='torch', precision='bf16')
    assert names(build_callbacks(torch_model, g)) == ['BFloat16']

# ---- data and memory

def as_read(labels, valid=(0,), x=None):
    "What `get_data` might return."
    if x is None: x = torch.rand(len(labels), 4)
    return Data(x, torch.tensor(labels), torch.rand(len(valid), 4), torch.tensor(valid))

@pytest.mark.parametrize('read, words', [
    (as_read([0, 7, 8]), 'labels run to 8, but only 3 of these are in training'),
    (as_read([0, 1], valid=(2,)), 'labels run to 2, but only 2 of these'),
    (as_read([0, 1], x=torch.ones(2, 4)), 'all pixels are the same')])
def test_data_that_teach_nothing(monkeypatch, read, words):
    monkeypatch.setattr(config, 'get_data', lambda folder: read)
    with pytest.raises(ValueError, match=f'mine: {words}'): normalized_data('mine')

@pytest.mark.parametrize('labels', [[0, 2, 4, 6, 8], [0, 3, 5, 8]])
def test_half_of_the_labels_are_enough(monkeypatch, labels):
    monkeypatch.setattr(config, 'get_data', lambda folder: as_read(labels))
    data, *_ = normalized_data('mine')
    assert data.y_train.tolist() == labels

def test_validation_need_not_have_all_labels(monkeypatch):
    read = as_read([0, 1, 2], valid=(1,))
    monkeypatch.setattr(config, 'get_data', lambda folder: read)
    assert normalized_data('mine')[0].y_train.max() == 2

def test_mnist_is_normalized_by_its_training_digits(raw):
    data, mean, std = normalized_data()
    assert [len(t) for t in data] == [50_000, 50_000, 10_000, 10_000]
    assert [mean, std] == [raw.x_train.mean().item(), raw.x_train.std().item()]
    back = data.x_valid*std + mean
    torch.testing.assert_close(back, raw.x_valid, atol=1e-5, rtol=0)
    back = data.x_train[:1000]*std + mean
    torch.testing.assert_close(back, raw.x_train[:1000], atol=1e-5, rtol=0)

def test_labels_that_start_from_1_are_reported(monkeypatch):
    monkeypatch.setattr(config, 'get_data', lambda folder: as_read([1, 2, 3]))
    with pytest.warns(UserWarning, match='mine: labels start from 1, not from 0'):
        normalized_data('mine')

TURNED = {'transposed': lambda x: x.mT, 'inverted': lambda x: 1 - x,
          'mirrored': lambda x: x.flip(-1), 'moved': lambda x: x.roll(3, -1),
          'as large as the picture': lambda x: F.interpolate(x[:,None], 40)[:,0,6:-6,6:-6],
          'on gray': lambda x: x.clamp(0.1)}

@pytest.mark.parametrize('change', TURNED.values(), ids=TURNED)
def test_pictures_in_another_form_are_reported(raw, change):
    x = change(raw.x_train[:600].view(-1, 28, 28)).reshape(-1, 784)
    fault = picture_fault(x)
    assert fault.startswith('pictures unlike those') and '--as-is' in fault

@pytest.mark.parametrize('rows', [slice(60), slice(1000, 1300), slice(50000)])
def test_pictures_like_those_of_mnist_are_not_reported(raw, rows):
    assert picture_fault(raw.x_train[rows]) == ''

def test_whole_learns_from_the_validation_digits_as_well(folder):
    data, mean, _ = normalized_data(folder, whole=True)
    raw = get_data(folder)
    assert [len(data.x_train), len(data.y_train), len(data.x_valid)] == [120, 120, 20]
    assert torch.equal(data.y_train, torch.cat([raw.y_train, raw.y_valid]))
    assert mean == torch.cat([raw.x_train, raw.x_valid]).mean().item()
    assert len(normalized_data(folder)[0].x_train) == 100

def test_the_memory_that_a_network_needs():
    words = '1000796000010 parameters need about 39147 GiB, here are'
    with pytest.raises(ValueError, match=words): # 785*10**6 + (10**6 + 1)*10**6 + ...
        check_memory([784, 10**6, 10**6, 10])
    check_memory([784, 100, 10])

def test_memory_is_not_checked_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.delattr(config.os, 'sysconf')
    check_memory([784, 10**9, 10])

@pytest.mark.parametrize('file', ['memory.max', 'memory/memory.limit_in_bytes'])
@pytest.mark.parametrize('limit, fits', [('1000000', False), ('max', True),
                                         ('9223372036854771712', True)])
def test_a_container_may_have_less_memory(monkeypatch, tmp_path, file, limit, fits):
    (tmp_path/'memory').mkdir()
    (tmp_path/file).write_text(limit + '\n')
    monkeypatch.setattr(config, 'CGROUP', tmp_path)
    if fits: check_memory([784, 100, 10])
    else:
        with pytest.raises(ValueError, match='79510 parameters'):
            check_memory([784, 100, 10])

@pytest.mark.parametrize('settings, n_bytes', [
    ({}, 42), (dict(opt='adamw'), 60), (dict(opt='adam', average=0.9), 78)])
def test_memory_of_optimizers_and_averages(monkeypatch, folder, tmp_path, settings,
                                           n_bytes):
    asked = []
    monkeypatch.setattr(config, 'check_memory', lambda *args: asked.append(args))
    build_learner(Settings(data=folder, **settings), tmp_path/'a.safetensors')
    assert asked == [([784, 100, 10], n_bytes)]

@pytest.mark.parametrize('pages, fits', [(2**18, True), (2**18-2**10, False)])
def test_memory_is_counted_in_pages(monkeypatch, pages, fits):
    monkeypatch.setattr(config.os, 'sysconf',
                        {'SC_PAGE_SIZE': 42, 'SC_PHYS_PAGES': pages}.get)
    sizes = [2**9-1, 2**9] # 2**18 parameters
    if fits: check_memory(sizes)
    else:
        with pytest.raises(ValueError, match='262144 parameters'): check_memory(sizes)

def test_a_network_without_enough_memory_is_never_built(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(config, 'build_model', None)
    s = Settings(hidden=','.join(['100000']*12), data=folder)
    with pytest.raises(ValueError, match='need about 4'):
        build_learner(s, tmp_path/'a.safetensors')

# ---- the learner

def test_settings_reach_their_place(folder, tmp_path):
    s = Settings(hidden='20,20', norm='layer', residual=True, smoothing=0.1,
                 max_norm=2., distort=True, noise=0.4, adversarial=0.7, average=0.9,
                 decay=0.3, precision='medium', opt='adamw', dropout=0.2, bs=50,
                 data=folder)
    learn = build_learner(s, tmp_path/'a.safetensors')
    assert names(learn.callbacks) == [
        'Fuse', 'Distort', 'Noise', 'Adversarial', 'MaxNorm', 'EMA', 'Schedule',
        'Progress', 'Checkpoint']
    assert names(learn.model.layers) == ['Linear', 'LayerNorm', 'ReLU', 'Dropout',
                                         'Residual', 'Linear']
    assert learn.loss.label_smoothing == 0.1 and learn.bs == 50
    assert [g['weight_decay'] for g in learn.opt.param_groups] == [0.3, 0.]
    assert learn.model.layers[3].generator is learn.generator
    assert learn.callbacks[1].generator is learn.generator

def test_the_checkpoint_describes_the_run(folder, tmp_path):
    s = Settings(hidden='7', data=folder)
    learn = build_learner(s, tmp_path/'a.safetensors')
    extra = dict(learn.callbacks[-1].extra)
    data, mean, std = normalized_data(folder)
    assert extra.pop('sizes') == [784, 7, 10]
    assert [extra.pop('mean'), extra.pop('std')] == [mean, std]
    assert extra.pop('checksum') > 0
    assert extra.pop('pictures') == ''
    assert extra == asdict(s) | {'data': 'few'} # beside the run
    assert learn.callbacks[-1].path == tmp_path/'a.safetensors'

@pytest.mark.parametrize('changes', [
    {}, dict(loss='mse'), dict(norm='batch', smoothing=0.1, opt='adamw', decay=0.1),
    dict(norm='layer', residual=True, dropout=0.3, adversarial=0.5, max_norm=1.)])
def test_a_fused_run_has_the_numbers_of_the_layers(folder, tmp_path, changes):
    usual = dict(hidden='20,20', bs=10, lr=0.01, data=folder)
    fused, plain = (build_learner(Settings(**usual | changes, fuse=fuse), tmp_path/name)
                    for fuse, name in ((True, 'a.safetensors'), (False, 'b.safetensors')))
    for learn in (fused, plain): learn.fit(3)
    for row, expected in zip(fused.history, plain.history):
        assert row == pytest.approx(expected, rel=1e-2) # a norm of ten rows magnifies

def test_the_seed_decides_everything_random(folder, tmp_path):
    def weights(seed):
        learn = build_learner(Settings(hidden='7', data=folder, seed=seed), tmp_path)
        return [learn.model.layers[0].w, torch.rand(3), learn.generator.initial_seed()]
    one, again, other = weights(1), weights(1), weights(2)
    assert torch.equal(one[0], again[0]) and torch.equal(one[1], again[1])
    assert not torch.equal(one[0], other[0]) and not torch.equal(one[1], other[1])
    assert [one[2], other[2]] == [1, 2]

@pytest.mark.parametrize('changes', [
    {}, dict(model='torch', precision='bf16'), dict(precision='bf16', residual=True),
    dict(loss='mse', norm='batch'), dict(opt='adamw', average=0.5, noise=0.1),
    dict(model='torch', distort=True, precision='medium')])
def test_what_the_settings_describe_can_be_trained(folder, tmp_path, changes, capsys):
    before = torch.get_float32_matmul_precision()
    usual = dict(hidden='20,20', epochs=6, bs=10, lr=0.01, data=folder)
    s = Settings(**usual | changes)
    learn = build_learner(s, tmp_path/'a.safetensors')
    learn.fit(s.epochs)
    losses = [row['train_loss'] for row in learn.history]
    assert losses[-1] < 0.9*losses[0]
    assert torch.get_float32_matmul_precision() == before
    model, _ = load_model(tmp_path/'a.safetensors')
    x = learn.data.x_valid
    with torch.no_grad():
        torch.testing.assert_close(model(x), learn.predict(x), atol=1e-5, rtol=1e-5)

# ---- resuming

@pytest.fixture
def stopped(folder, tmp_path, capsys):
    "Settings, and the file of a run that was stopped in its second epoch of three."
    settings = dict(hidden='5', bs=25, epochs=3, data=folder)
    path = tmp_path/'a.safetensors'
    learn = build_learner(Settings(**settings), path)
    def stop(learn): learn.stopped = learn.step == 6
    learn.callbacks[-1].after_batch = stop
    learn.fit(3)
    return settings, path

def test_a_stopped_run_ends_like_one_that_was_left_alone(stopped, tmp_path):
    settings, path = stopped
    through = build_learner(Settings(**settings), tmp_path/'b.safetensors')
    through.fit(3)
    learn = build_learner(Settings(**settings), path)
    resume_training(learn, path)
    assert [learn.step, learn.n_steps] == [6, 12]
    learn.fit()
    for a, b in zip(learn.model.parameters(), through.model.parameters()):
        assert torch.equal(a, b)

@pytest.mark.parametrize('name, value, was', [
    ('lr', 0.5, 0.05), ('smoothing', 0.1, 0.0), ('seed', 7, 0), ('epochs', 9, 3)])
def test_a_run_is_not_resumed_with_other_settings(stopped, name, value, was):
    settings, path = stopped
    learn = build_learner(Settings(**settings | {name: value}), path)
    words = f'not what was trained, {name} was {was}, is {value}'
    with pytest.raises(ValueError, match=words): resume_training(learn, path)

def test_a_run_is_not_resumed_with_another_number_of_steps(stopped):
    settings, path = stopped
    values = load(path)
    values['training']['n_steps'] = 16
    save(path, values)
    learn = build_learner(Settings(**settings), path)
    with pytest.raises(ValueError, match='trained, steps was 16, is 12'):
        resume_training(learn, path)

def test_a_run_is_not_resumed_with_other_digits(stopped):
    settings, path = stopped
    file = Path(settings['data'])/'train-images-idx3-ubyte'
    content = bytearray(file.read_bytes())
    content[-784] ^= 1 # of a validation digit
    file.write_bytes(content)
    learn = build_learner(Settings(**settings), path)
    with pytest.raises(ValueError, match='not what was trained, checksum was'):
        resume_training(learn, path)

def test_a_run_is_resumed_with_data_that_have_moved(stopped, tmp_path):
    settings, path = stopped
    assert str(tmp_path) not in str(path.read_bytes()[:10**4])
    Path(settings['data']).rename(tmp_path/'moved')
    learn = build_learner(Settings(**settings | {'data': str(tmp_path/'moved')}), path)
    resume_training(learn, path)
    assert learn.step == 6

def test_a_setting_of_a_newer_version_is_named(stopped):
    settings, path = stopped
    save(path, load(path) | {'warmup': 5})
    learn = build_learner(Settings(**settings), path)
    with pytest.warns(UserWarning, match='warmup is not known to this version'):
        resume_training(learn, path)

def test_a_setting_that_a_file_lacks_had_its_default(stopped):
    settings, path = stopped
    values = load(path)
    for name in ('adversarial', 'norm'): del values[name]
    save(path, values)
    learn = build_learner(Settings(**settings), path)
    resume_training(learn, path)
    assert learn.step == 6

# ---- files

@pytest.fixture
def saved(tmp_path):
    "A file with a network of the sizes 784, 300, 100, 10, and what it holds."
    model = build_model([784, 300, 100, 10], dropout=0.5)
    values = {f'model.{name}': t for name, t in model.state_dict().items()}
    values |= asdict(Settings(hidden='300,100', dropout=0.5))
    values |= {'sizes': [784, 300, 100, 10], 'mean': 0.1, 'std': 0.3}
    path = tmp_path/'model.safetensors'
    save(path, values)
    return model.eval(), path, values

def test_a_network_comes_back_from_its_file_or_folder(saved):
    model, path, values = saved
    x = torch.randn(3, 784)
    for place in (path, path.parent, str(path)):
        again, info = load_model(place)
        assert torch.equal(again(x), model(x)) and not again.training
        del info['pictures'], info['finished'] # what the file does not say
        assert info == {k: v for k, v in values.items() if not k.startswith('model.')}
        assert [type(m) for m in again.layers] == [type(m) for m in model.layers]
        assert again.layers[2].p == 0.5

def test_no_file(tmp_path):
    for place in (tmp_path, tmp_path/'none.safetensors'):
        with pytest.raises(FileNotFoundError, match='.safetensors: there is no such'):
            load_model(place)

def refused(saved, words='', drop=(), **changes):
    "Is the file refused, in one line that names it, if it says something else?"
    _, path, values = saved
    save(path, {k: v for k, v in (values | changes).items() if k not in drop})
    with pytest.raises(ValueError) as error: load_model(path)
    said = str(error.value)
    assert f'{path}: holds no network of fcnet_train (' in said and words in said, said
    assert '\n' not in said

@pytest.mark.parametrize('name', ['model', 'sizes', 'dropout', 'mean', 'std'])
def test_a_description_that_lacks_something(saved, name):
    refused(saved, f'KeyError {name!r}', drop=[name])

@pytest.mark.parametrize('name, value, words', [
    ('model', 'keras', "model is 'keras'"), ('model', None, 'model is None'),
    ('norm', 'batchnorm', "norm is 'batchnorm'"), ('norm', None, 'norm is None'),
    ('residual', 'yes', "residual is 'yes'"), ('residual', None, 'residual is None')])
def test_kinds_that_a_file_may_not_claim(saved, name, value, words):
    refused(saved, words, **{name: value})

@pytest.mark.parametrize('dropout', [1, -0.1, float('nan'), 'x', None, True])
def test_dropout_that_a_file_may_not_claim(saved, dropout):
    refused(saved, dropout=dropout)

@pytest.mark.parametrize('std', [0, -1, float('nan'), float('inf'), '1', None, True])
def test_standard_deviations_that_a_file_may_not_claim(saved, std):
    refused(saved, std=std)

@pytest.mark.parametrize('mean', [math.nan, math.inf, -math.inf, True, '1', None])
def test_means_that_a_file_may_not_claim(saved, mean):
    refused(saved, mean=mean)

@pytest.mark.parametrize('data', [0, False, '', []])
def test_data_that_a_file_does_not_name_are_mnist(saved, data):
    _, path, values = saved
    save(path, values | {'data': data})
    assert load_model(path)[1]['data'] is None

@pytest.mark.parametrize('data', [1, True, {'a': 1}])
def test_data_that_have_no_name(saved, data): refused(saved, data=data)

@pytest.mark.parametrize('mean', [0, -0.5, 2.])
def test_any_finite_mean_will_do(saved, mean):
    _, path, values = saved
    save(path, values | {'mean': mean})
    assert load_model(path)[1]['mean'] == mean

@pytest.mark.parametrize('sizes', [
    [784, 10], [784, 300, 100, 0], [784, 300., 100, 10], 'x', None, [], [[784]], [784],
    [784, 10**6, 10**6, 10], [10**9]*4, [784, 300, 10], [784, 300, 100, 11], [True]*4,
    [784, 300, 100, 10, 10], [784, 300, 100, -10]])
def test_sizes_that_a_file_may_not_claim(saved, sizes):
    refused(saved, sizes=sizes)

@pytest.mark.parametrize('sizes', [
    [784, 10**9, 10], [10**9]*4, [784, 10**6, 10**6, 10]])
def test_nothing_large_is_made_of_a_small_file(saved, monkeypatch, sizes):
    monkeypatch.setattr(config, 'build_model', None) # not even asked for
    refused(saved, 'ValueError description: weights is', sizes=sizes)

def test_a_network_may_hold_as_many_weights_as_the_file():
    state = {'0.w': torch.zeros(3, 2), '0.b': torch.zeros(2)}
    usual = dict(mean=0., std=1., dropout=0., residual=False)
    config._check_description(usual | {'sizes': [4, 2]}, state)
    for sizes, words in (([5, 2], 'weights is 10, expected at most 8'),
                         ([1, 1, 1], 'sizes is 3, expected .* and at most 2'),
                         ([3, 2.], 'size is 2.0, expected an integer')):
        with pytest.raises(ValueError, match=words):
            config._check_description(usual | {'sizes': sizes}, state)

@pytest.mark.parametrize('change', [
    torch.Tensor.double, torch.Tensor.char, lambda w: w.T.contiguous(), lambda w: w/0])
def test_tensors_of_another_form_or_not_finite(saved, change):
    refused(saved, '0.w', **{'model.0.w': change(saved[2]['model.0.w'])})

def test_tensors_that_are_missing_or_too_many(saved):
    _, _, values = saved
    refused(saved, drop=['model.0.b'])
    refused(saved, '9.w is', **{'model.9.w': torch.zeros(1)})
    refused(saved, '0.w is nothing', drop=['model.0.w'],
            **{'model.9.w': values['model.0.w']})

def test_a_file_without_norm_and_residual_has_none(saved):
    model, path, values = saved
    save(path, {k: v for k, v in values.items() if k not in ('norm', 'residual')})
    assert names(load_model(path)[0].layers) == names(model.layers)

def test_norm_and_residual_of_a_file(tmp_path):
    model = build_model([5, 3, 3, 2], norm='layer', residual=True, dropout=0.2)
    values = {f'model.{name}': t for name, t in model.state_dict().items()}
    values |= dict(sizes=[5, 3, 3, 2], mean=0., std=1., model='handmade', dropout=0.2,
                   norm='layer', residual=True)
    save(tmp_path/'model.safetensors', values)
    assert names(load_model(tmp_path)[0].modules()) == names(model.modules())

def test_shortcuts_have_no_effect_without_layers_of_one_size(saved):
    model, path, values = saved
    save(path, values | {'residual': True})
    assert len(load_model(path)[0].layers) == len(model.layers)

def test_no_dropout_is_a_description_too(tmp_path):
    model = build_model([3, 2])
    values = {f'model.{name}': t for name, t in model.state_dict().items()}
    values |= dict(sizes=[3, 2], mean=0, std=1, model='handmade', dropout=0)
    save(tmp_path/'model.safetensors', values)
    assert torch.equal(load_model(tmp_path)[0].state_dict()['0.w'], model.layers[0].w)

def test_a_network_of_pytorch_comes_back(tmp_path):
    model = build_model([5, 3, 2], 'torch', dropout=0.2).eval()
    values = {f'model.{name}': t.detach() for name, t in model.state_dict().items()}
    values |= dict(sizes=[5, 3, 2], mean=0., std=1., model='torch', dropout=0.2)
    save(tmp_path/'model.safetensors', values)
    x = torch.randn(4, 5)
    again = load_model(tmp_path)[0]
    assert torch.equal(again(x), model(x)) and not again.training

V010 = Path(__file__).parent/'v0.1.0' # files that this version of fcnet has written

@pytest.mark.parametrize('name', ['handmade', 'torch'])
def test_files_of_version_0_1_0_give_the_same_scores(name):
    model, info = load_model(V010/f'{name}.safetensors')
    x = torch.linspace(-3, 3, 2*784).view(2, 784).sin()
    with torch.no_grad(): scores = model(x)
    torch.testing.assert_close(scores, torch.tensor(info['scores']), atol=1e-5, rtol=0)

def test_runs_of_version_0_1_0_can_be_resumed():
    path = V010/'handmade.safetensors'
    info = load(path)
    saved = {name: info[name] for name in NAMES if name in info}
    learn = build_learner(Settings(**OLDER | saved), path)
    resume_training(learn, path)
    assert [learn.step, learn.n_steps, len(learn.history)] == [10, 20, 1]
