"Config that are refused, what is built from them, and files that claim too much."
import json
import math
import subprocess
import sys
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
from fcnet.config import (Config, Description, build_callbacks, build_learner, build_loss,
                          build_model, build_optimizer, check_memory, load_model,
                          normalized_data, read_config, resume_training, upgrade)
from fcnet.data import Data, get_data
from fcnet.images import picture_fault
from fcnet.layers import Linear, Sequential
from fcnet.nn_module import MLP
from fcnet.optim import SGD, Adam, AdamW

NAMES = list(Config.model_fields)

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

# ---- Config

@pytest.mark.parametrize('bad', [None, {}, 'x', float('nan'), math.inf, -math.inf])
@pytest.mark.parametrize('name', NAMES)
def test_a_setting_of_the_wrong_type_is_named(name, bad):
    if name == 'data' and (bad is None or bad == 'x'): return # those are fine
    with pytest.raises(ValueError, match=f'^{name} is .*, expected') as error:
        Config(**{name: bad})
    assert type(error.value) is ValueError and '\n' not in str(error.value)

@pytest.mark.parametrize('name', NAMES)
def test_true_is_a_switch_not_a_number_or_a_name(name):
    if name in ('residual', 'distort', 'train_on_all', 'fuse'):
        assert getattr(Config(**{name: True}), name) is True
    else:
        with pytest.raises(ValueError, match=f'{name} is True, expected'):
            Config(**{name: True})

@pytest.mark.parametrize('name, value, words', [
    ('lr', -1., 'lr is -1.0, expected greater than 0'),
    ('lr', 0., 'lr is 0.0, expected greater than 0'),
    ('lr', True, 'lr is True, expected a valid number'),
    ('lr', math.nan, 'lr is nan, expected a finite number'),
    ('lr', torch.ones(2), 'lr is tensor([1., 1.]), expected a valid number'),
    ('bs', np.ones(2), 'bs is array([1., 1.]), expected a valid integer'),
    ('bs', 0, 'bs is 0, expected greater than or equal to 1'),
    ('bs', 64., 'bs is 64.0, expected a valid integer'),
    ('bs', '64', "bs is '64', expected a valid integer"),
    ('epochs', 0, 'epochs is 0, expected greater than or equal to 1'),
    ('epochs', np.float64(3.), 'epochs is 3.0, expected a valid integer'),
    ('seed', -1, 'seed is -1, expected greater than or equal to 0'),
    ('seed', 2**63, 'seed is 9223372036854775808, expected less than 9223372036'),
    ('model', 'keras', "model is 'keras', expected 'handmade' or 'torch'"),
    ('norm', 'batchnorm', "norm is 'batchnorm', expected 'none', 'batch' or 'layer'"),
    ('loss', 'hinge', "loss is 'hinge', expected 'entropy' or 'mse'"),
    ('opt', 'magic', "opt is 'magic', expected 'sgd', 'adam' or 'adamw'"),
    ('precision', 'low', "precision is 'low', expected 'auto', 'highest', 'high', "
                         "'medium' or 'bf16'"),
    ('label_smoothing', 1., 'label_smoothing is 1.0, expected less than 1'),
    ('dropout', 1., 'dropout is 1.0, expected less than 1'),
    ('dropout', -0.1, 'dropout is -0.1, expected greater than or equal to 0'),
    ('ema', 1., 'ema is 1.0, expected less than 1'),
    ('weight_decay', -1e-9, 'weight_decay is -1e-09, expected greater than or equal'),
    ('max_norm', -1., 'max_norm is -1.0, expected greater than or equal to 0'),
    ('affine', -1., 'affine is -1.0, expected greater than or equal to 0'),
    ('elastic', -1., 'elastic is -1.0, expected greater than or equal to 0'),
    ('noise', -1., 'noise is -1.0, expected greater than or equal to 0'),
    ('adversarial', -1., 'adversarial is -1.0, expected greater than or equal to 0'),
    ('residual', 1, 'residual is 1, expected a valid boolean'),
    ('distort', 'yes', "distort is 'yes', expected a valid boolean"),
    ('fuse', None, 'fuse is None, expected a valid boolean'),
    ('train_on_all', 0, 'train_on_all is 0, expected a valid boolean'),
    ('data', Path('x'), "data is PosixPath('x'), expected a valid string"),
    ('hidden', 300, 'hidden is 300, expected a valid list'),
    ('hidden', '300,100', "hidden is '300,100', expected a valid list"),
    ('hidden', (30, 20), 'hidden is (30, 20), expected a valid list'),
    ('hidden', [30, 0], 'hidden.1 is 0, expected greater than or equal to 1'),
    ('hidden', [100_001], 'hidden.0 is 100001, expected less than or equal to 100000'),
    ('hidden', [30, 'x'], "hidden.1 is 'x', expected a valid integer"),
    ('hidden', [True], 'hidden.0 is True, expected a valid integer'),
    ('smoothing', 0.1, 'there is no setting smoothing'),
    ('colour', 'red', 'there is no setting colour')])
def test_a_wrong_setting_is_one_line(name, value, words):
    with pytest.raises(ValueError) as error: Config(**{name: value})
    assert str(error.value).startswith(words) and '\n' not in str(error.value)

def test_a_long_value_is_cut_short():
    for bad in ('9'*5000, 10**400, [[[[[[[]]]]]]]*100):
        with pytest.raises(ValueError, match='lr is ') as error: Config(lr=bad)
        assert len(str(error.value)) < 200

@pytest.mark.parametrize('name, value', [
    ('lr', 1), ('lr', 1e-9), ('bs', 1), ('epochs', 1), ('seed', 2**63-1), ('seed', 0),
    ('label_smoothing', 0), ('label_smoothing', 0.999), ('dropout', 0.999),
    ('ema', 0.999), ('affine', 0), ('elastic', 0.), ('noise', 1e9), ('loss', 'mse'),
    ('opt', 'adam'), ('opt', 'adamw'), ('norm', 'layer'), ('norm', 'batch'),
    ('precision', 'high'), ('precision', 'medium'), ('precision', 'bf16'),
    ('model', 'torch'), ('data', 'x'), ('hidden', []), ('hidden', [1]),
    ('hidden', [100_000]), ('hidden', [30, 20])])
def test_a_setting_at_the_end_of_its_range_is_kept(name, value):
    assert getattr(Config(**{name: value}), name) == value

@pytest.mark.parametrize('name, value, kept', [
    ('epochs', np.int64(3), 3), ('seed', np.uint8(7), 7), ('lr', np.float32(0.5), 0.5),
    ('hidden', [np.int32(30)], [30])])
def test_numbers_of_numpy_are_numbers(name, value, kept):
    found = getattr(Config(**{name: value}), name)
    assert found == kept and type(found) is type(kept)

@pytest.mark.parametrize('name, value', [
    ('norm', 'batch'), ('norm', 'layer'), ('residual', True), ('loss', 'mse'),
    ('label_smoothing', 0.1), ('adversarial', 1.)])
def test_what_only_our_own_layers_have(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value!r}, expected .* 'torch'"):
        Config(model='torch', **{name: value})

def test_squared_error_has_no_label_smoothing():
    with pytest.raises(ValueError, match="label_smoothing is 0.1, expected 0 with loss"):
        Config(loss='mse', label_smoothing=0.1)

def test_batch_normalization_and_averages_do_not_go_together():
    with pytest.raises(ValueError, match="ema is 0.9, expected 0 with norm 'batch'"):
        Config(norm='batch', ema=0.9)
    Config(norm='layer', ema=0.9)

def test_settings_go_through_a_dictionary_and_json():
    config = Config(hidden=[30], lr=0.1, distort=True)
    assert Config(**config.model_dump()) == config
    assert Config.model_validate_json(config.model_dump_json()) == config

def test_settings_never_change():
    with pytest.raises(ValueError): Config().lr = 3.
    Config().hidden.append(5) # a list of its own
    assert Config().hidden == [100]

def test_every_setting_has_a_description():
    assert all(field.description for field in Config.model_fields.values())

def test_settings_do_not_load_pytorch():
    script = 'import sys, fcnet; fcnet.Config(lr=1); print("torch._C" in sys.modules)'
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.stdout == 'False\n', done.stderr

# ---- settings in files

@pytest.mark.parametrize('old, new', [
    (dict(smoothing=0.1), dict(label_smoothing=0.1)), (dict(average=0.9), dict(ema=0.9)),
    (dict(decay=0.2), dict(weight_decay=0.2)), (dict(whole=True), dict(train_on_all=True)),
    (dict(hidden='300,100'), dict(hidden=[300, 100])),
    (dict(hidden='none'), dict(hidden=[])), (dict(hidden='30, 20'), dict(hidden=[30, 20])),
    ({}, {}), (dict(lr=3, x=[1]), dict(lr=3, x=[1]))])
def test_old_names_are_upgraded(old, new):
    before = dict(old)
    found = upgrade(old)
    assert found == {'fuse': False} | new
    assert old == before and upgrade(found) == found

def test_what_is_new_stays_as_it_is():
    config = Config(norm='layer', residual=True, hidden=[]).model_dump()
    assert upgrade(config) == config

def test_data_are_seen_from_the_file_of_settings(tmp_path):
    (tmp_path/'a').mkdir()
    for data, found in (('../few', tmp_path/'a'/'../few'), ('/few', Path('/few')),
                        (None, None)):
        text = json.dumps({'lr': 0.1, 'data': data})
        (tmp_path/'a/c.json').write_text(text)
        assert read_config(tmp_path/'a/c.json') == {
            'lr': 0.1, 'data': found and str(found)}

@pytest.mark.parametrize('text', ['', '{', '3', '[1]', '"x"', 'null', '['*10**5])
def test_a_file_without_settings(tmp_path, text):
    (tmp_path/'c.json').write_text(text)
    with pytest.raises(ValueError, match='c.json: holds no settings in JSON') as error:
        read_config(tmp_path/'c.json')
    assert '\n' not in str(error.value)

# ---- the network

@pytest.mark.parametrize('model', ['handmade', 'torch'])
def test_weights_come_from_the_generator_and_the_last_layer_starts_small(model):
    g = torch.Generator().manual_seed(3)
    config = Config(hidden=[900], model=model, dropout=0.5)
    one = build_model(config, 20, 5, g)
    two = build_model(config, 20, 5, torch.Generator().manual_seed(3))
    for p, q in zip(one.parameters(), two.parameters()): assert torch.equal(p, q)
    assert 0.019 < list(two.parameters())[-2].std() < 0.021
    if model == 'handmade': assert one.layers[2].generator is g

def test_where_norms_shortcuts_and_dropout_are():
    plain = build_model(Config(hidden=[5, 5]), 4, 3)
    assert isinstance(plain, Sequential)
    assert names(plain.layers) == ['Linear', 'ReLU', 'Linear', 'ReLU', 'Linear']
    helped = build_model(Config(hidden=[5, 5, 5], norm='layer', dropout=0.1,
                                residual=True), 4, 3)
    assert names(helped.layers) == ['Linear', 'LayerNorm', 'ReLU', 'Dropout',
                                    'Residual', 'Residual', 'Linear']
    config = Config(hidden=[5, 5], norm='batch', residual=True)
    inner = build_model(config, 4, 3).layers[3].layers
    assert names(inner) == ['Linear', 'BatchNorm', 'ReLU']
    assert names(build_model(Config(hidden=[]), 4, 4).layers) == ['Linear']
    assert helped.layers[3].p == 0.1

def test_bfloat16_is_in_every_linear_layer():
    config = Config(hidden=[5, 5], residual=True, precision='bf16')
    model = build_model(config, 4, 3)
    kinds = [type(layer) for layer in model.modules() if isinstance(layer, Linear)]
    assert kinds == [BFloat16Linear]*3
    for precision in ('highest', 'high', 'medium'):
        model = build_model(Config(hidden=[5], precision=precision), 4, 3)
        assert type(model.layers[0]) is Linear

def test_a_network_of_pytorch_ignores_what_it_does_not_have():
    config = Config(hidden=[5], model='torch', dropout=0.2, precision='bf16')
    model = build_model(config, 4, 3)
    assert isinstance(model, MLP)
    assert [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] == [0.2]

# ---- loss, optimizer, callbacks

def test_losses():
    assert build_loss(Config(model='torch')) is F.cross_entropy
    assert type(build_loss(Config(loss='mse'))) is OneHotMSE
    loss = build_loss(Config(label_smoothing=0.1))
    assert type(loss) is CrossEntropy and loss.label_smoothing == 0.1
    assert build_loss(Config()).label_smoothing == 0

@pytest.mark.parametrize('opt, kind', [('sgd', SGD), ('adam', Adam), ('adamw', AdamW)])
def test_optimizers(opt, kind):
    model = build_model(Config(hidden=[3]), 4, 2)
    found = build_optimizer(Config(opt=opt, lr=0.3, weight_decay=0.2), model)
    assert type(found) is kind
    assert [g['weight_decay'] for g in found.param_groups] == [0.2, 0.]
    assert [g['lr'] for g in found.param_groups] == [0.3, 0.3]
    assert [p.dim() for g in found.param_groups for p in g['params']] == [2, 2, 1, 1]
    if opt == 'sgd': assert found.param_groups[0]['momentum'] == 0.9

def test_settings_that_are_off_add_no_callback():
    g = torch.Generator()
    assert build_callbacks(Config(fuse=False), g) == []
    for changes in (dict(precision='bf16'), dict(model='torch')): # these have no plan
        assert build_callbacks(Config(**changes), g) == []

def test_callbacks_and_their_order():
    g = torch.Generator()
    s = Config(distort=True, affine=2., elastic=0, noise=0.4, adversarial=0.7,
                 max_norm=2., ema=0.9, precision='medium')
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
        found, = build_callbacks(Config(precision=precision, fuse=False), g)
        assert isinstance(found, Precision) and found.precision == precision
    assert build_callbacks(Config(fuse=False), g) == []
    torch_model = Config(model='torch', precision='bf16')
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
    monkeypatch.setattr('fcnet.get_data', lambda folder: read)
    with pytest.raises(ValueError, match=f'mine: {words}'): normalized_data('mine')

@pytest.mark.parametrize('labels', [[0, 2, 4, 6, 8], [0, 3, 5, 8]])
def test_half_of_the_labels_are_enough(monkeypatch, labels):
    monkeypatch.setattr('fcnet.get_data', lambda folder: as_read(labels))
    data, *_ = normalized_data('mine')
    assert data.y_train.tolist() == labels

def test_validation_need_not_have_all_labels(monkeypatch):
    read = as_read([0, 1, 2], valid=(1,))
    monkeypatch.setattr('fcnet.get_data', lambda folder: read)
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
    monkeypatch.setattr('fcnet.get_data', lambda folder: as_read([1, 2, 3]))
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
    data, mean, _ = normalized_data(folder, train_on_all=True)
    raw = get_data(folder)
    assert [len(data.x_train), len(data.y_train), len(data.x_valid)] == [120, 120, 20]
    assert torch.equal(data.y_train, torch.cat([raw.y_train, raw.y_valid]))
    assert mean == torch.cat([raw.x_train, raw.x_valid]).mean().item()
    assert len(normalized_data(folder)[0].x_train) == 100

def test_the_memory_that_a_network_needs():
    words = '10079600010 parameters need about 394 GiB, expected at'
    with pytest.raises(ValueError, match=words): # 785*10**5 + (10**5 + 1)*10**5 + ...
        check_memory(Config(hidden=[10**5, 10**5]))
    check_memory(Config())

def test_memory_is_not_checked_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.delattr(config.os, 'sysconf')
    check_memory(Config(hidden=[10**5]*9))

@pytest.mark.parametrize('file', ['memory.max', 'memory/memory.limit_in_bytes'])
@pytest.mark.parametrize('limit, fits', [('1000000', False), ('max', True),
                                         ('9223372036854771712', True)])
def test_a_container_may_have_less_memory(monkeypatch, tmp_path, file, limit, fits):
    (tmp_path/'memory').mkdir()
    (tmp_path/file).write_text(limit + '\n')
    monkeypatch.setattr(config, 'CGROUP', tmp_path)
    if fits: check_memory(Config())
    else:
        with pytest.raises(ValueError, match='79510 parameters'): check_memory(Config())

@pytest.mark.parametrize('settings, n_bytes', [
    ({}, 42), (dict(opt='adamw'), 60), (dict(opt='adam', ema=0.9), 78)])
def test_memory_of_optimizers_and_averages(monkeypatch, folder, tmp_path, settings,
                                           n_bytes):
    need = 79510*n_bytes # bytes, in pages of one byte
    for pages in (need, need-1):
        monkeypatch.setattr(config.os, 'sysconf',
                            {'SC_PAGE_SIZE': 1, 'SC_PHYS_PAGES': pages}.get)
        if pages == need: check_memory(Config(**settings))
    with pytest.raises(ValueError, match='79510 parameters'):
        build_learner(Config(data=folder, **settings), tmp_path/'a.safetensors')

@pytest.mark.parametrize('pages, fits', [(2**18, True), (2**18-2**10, False)])
def test_memory_is_counted_in_pages(monkeypatch, pages, fits):
    monkeypatch.setattr(config.os, 'sysconf',
                        {'SC_PAGE_SIZE': 42, 'SC_PHYS_PAGES': pages}.get)
    sizes = Config(hidden=[]), 2**9-1, 2**9 # 2**18 parameters
    if fits: check_memory(*sizes)
    else:
        with pytest.raises(ValueError, match='262144 parameters'): check_memory(*sizes)

def test_a_network_without_enough_memory_is_never_built(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(config, 'build_model', None)
    s = Config(hidden=[100_000]*12, data=folder)
    with pytest.raises(ValueError, match='need about 4'):
        build_learner(s, tmp_path/'a.safetensors')

# ---- the learner

def test_settings_reach_their_place(folder, tmp_path):
    s = Config(hidden=[20, 20], norm='layer', residual=True, label_smoothing=0.1,
                 max_norm=2., distort=True, noise=0.4, adversarial=0.7, ema=0.9,
                 weight_decay=0.3, precision='medium', opt='adamw', dropout=0.2, bs=50,
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
    s = Config(hidden=[7], data=folder)
    learn = build_learner(s, tmp_path/'a.safetensors')
    extra = dict(learn.callbacks[-1].extra)
    data, mean, std = normalized_data(folder)
    assert extra.pop('sizes') == [784, 7, 10]
    assert [extra.pop('mean'), extra.pop('std')] == [mean, std]
    assert extra.pop('checksum') > 0
    assert extra.pop('pictures') == ''
    assert extra == s.model_dump() | {'data': 'few'} # beside the run
    assert learn.callbacks[-1].path == tmp_path/'a.safetensors'

@pytest.mark.parametrize('changes', [
    {}, dict(loss='mse'), dict(norm='batch', label_smoothing=0.1, opt='adamw', weight_decay=0.1),
    dict(norm='layer', residual=True, dropout=0.3, adversarial=0.5, max_norm=1.)])
def test_a_fused_run_has_the_numbers_of_the_layers(folder, tmp_path, changes):
    usual = dict(hidden=[20, 20], bs=10, lr=0.01, data=folder)
    fused, plain = (build_learner(Config(**usual | changes, fuse=fuse), tmp_path/name)
                    for fuse, name in ((True, 'a.safetensors'), (False, 'b.safetensors')))
    for learn in (fused, plain): learn.fit(3)
    for row, expected in zip(fused.history, plain.history):
        assert row == pytest.approx(expected, rel=1e-2) # a norm of ten rows magnifies

def test_the_seed_decides_everything_random(folder, tmp_path):
    def weights(seed):
        learn = build_learner(Config(hidden=[7], data=folder, seed=seed), tmp_path)
        return [learn.model.layers[0].w, torch.rand(3), learn.generator.initial_seed()]
    one, again, other = weights(1), weights(1), weights(2)
    assert torch.equal(one[0], again[0]) and torch.equal(one[1], again[1])
    assert not torch.equal(one[0], other[0]) and not torch.equal(one[1], other[1])
    assert [one[2], other[2]] == [1, 2]

@pytest.mark.parametrize('changes', [
    {}, dict(model='torch', precision='bf16'), dict(precision='bf16', residual=True),
    dict(loss='mse', norm='batch'), dict(opt='adamw', ema=0.5, noise=0.1),
    dict(model='torch', distort=True, precision='medium')])
def test_what_the_settings_describe_can_be_trained(folder, tmp_path, changes, capsys):
    before = torch.get_float32_matmul_precision()
    usual = dict(hidden=[20, 20], epochs=6, bs=10, lr=0.01, data=folder)
    s = Config(**usual | changes)
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
    "Config, and the file of a run that was stopped in its second epoch of three."
    settings = dict(hidden=[5], bs=25, epochs=3, data=folder)
    path = tmp_path/'a.safetensors'
    learn = build_learner(Config(**settings), path)
    def stop(learn): learn.stopped = learn.step == 6
    learn.callbacks[-1].after_batch = stop
    learn.fit(3)
    return settings, path

def test_a_stopped_run_ends_like_one_that_was_left_alone(stopped, tmp_path):
    settings, path = stopped
    through = build_learner(Config(**settings), tmp_path/'b.safetensors')
    through.fit(3)
    learn = build_learner(Config(**settings), path)
    resume_training(learn, path)
    assert [learn.step, learn.n_steps] == [6, 12]
    learn.fit()
    for a, b in zip(learn.model.parameters(), through.model.parameters()):
        assert torch.equal(a, b)

@pytest.mark.parametrize('name, value, was', [
    ('lr', 0.5, 0.05), ('label_smoothing', 0.1, 0.0), ('seed', 7, 0), ('epochs', 9, 3)])
def test_a_run_is_not_resumed_with_other_settings(stopped, name, value, was):
    settings, path = stopped
    learn = build_learner(Config(**settings | {name: value}), path)
    words = f'not the run that was trained, {name} was {was} and is now {value}'
    with pytest.raises(ValueError, match=words): resume_training(learn, path)

def test_a_run_is_not_resumed_with_another_number_of_steps(stopped):
    settings, path = stopped
    values = load(path)
    values['training']['n_steps'] = 16
    save(path, values)
    learn = build_learner(Config(**settings), path)
    with pytest.raises(ValueError, match='trained, steps was 16 and is now 12'):
        resume_training(learn, path)

def test_a_run_is_not_resumed_with_other_digits(stopped):
    settings, path = stopped
    file = Path(settings['data'])/'train-images-idx3-ubyte'
    content = bytearray(file.read_bytes())
    content[-784] ^= 1 # of a validation digit
    file.write_bytes(content)
    learn = build_learner(Config(**settings), path)
    with pytest.raises(ValueError, match='not the run that was trained, checksum was'):
        resume_training(learn, path)

def test_a_run_is_resumed_with_data_that_have_moved(stopped, tmp_path):
    settings, path = stopped
    assert str(tmp_path) not in str(path.read_bytes()[:10**4])
    Path(settings['data']).rename(tmp_path/'moved')
    learn = build_learner(Config(**settings | {'data': str(tmp_path/'moved')}), path)
    resume_training(learn, path)
    assert learn.step == 6

def test_a_setting_of_a_newer_version_is_named(stopped):
    settings, path = stopped
    save(path, load(path) | {'warmup': 5})
    learn = build_learner(Config(**settings), path)
    with pytest.warns(UserWarning, match='warmup is not known to this version'):
        resume_training(learn, path)

def test_a_setting_that_a_file_lacks_had_its_default(stopped):
    settings, path = stopped
    values = load(path)
    for name in ('adversarial', 'norm'): del values[name]
    save(path, values)
    learn = build_learner(Config(**settings), path)
    resume_training(learn, path)
    assert learn.step == 6

# ---- files

@pytest.fixture
def saved(tmp_path):
    "A file with a network of the sizes 784, 300, 100, 10, and what it holds."
    config = Config(hidden=[300, 100], dropout=0.5)
    model = build_model(config)
    values = {f'model.{name}': t for name, t in model.state_dict().items()}
    values |= config.model_dump()
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
        for name in ('pictures', 'finished', 'training'): # what the file does not say
            del info[name]
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
    assert f'{path}: holds no network of fcnet (' in said and words in said, said
    assert '\n' not in said

@pytest.mark.parametrize('name', ['sizes', 'mean', 'std'])
def test_a_description_that_lacks_something(saved, name):
    refused(saved, f'{name} is missing', drop=[name])

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

@pytest.mark.parametrize('data', [0, False, [], 1, True, {'a': 1}])
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

@pytest.mark.parametrize('sizes, words', [
    ([784, 10**5, 10], '3 sizes ask for 79400000 weights, expected at most 266610 in 6'),
    ([784]*300 + [10], '301 sizes ask for'), ([784] + [1]*9 + [10], '11 sizes ask for'),
    ([784, 10**9, 10], 'hidden.0 is 1000000000, expected less than')])
def test_nothing_large_is_made_of_a_small_file(saved, monkeypatch, sizes, words):
    monkeypatch.setattr(config, 'build_model', None) # not even asked for
    refused(saved, words, sizes=sizes, hidden=sizes[1:-1])

@pytest.mark.parametrize('change, words', [
    (dict(sizes=[3, 2.]), 'sizes.1 is 2.0, expected a valid integer'),
    (dict(sizes=[3]), 'sizes is .3., expected at least 2 items'),
    (dict(mean=True), 'mean is True, expected a valid number'),
    (dict(std=0), 'std is 0, expected greater than 0'),
    (dict(pictures=3), 'pictures is 3, expected a valid string'),
    (dict(training=[]), 'training is .., expected a valid dictionary')])
def test_a_description_is_checked_like_settings(change, words):
    right = dict(sizes=[3, 2], hidden=[], mean=0, std=1)
    Description(**right)
    with pytest.raises(ValueError, match=words): Description(**right | change)

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
    config = Config(hidden=[3, 3], norm='layer', residual=True, dropout=0.2)
    model = build_model(config, 5, 2)
    values = {f'model.{name}': t for name, t in model.state_dict().items()}
    values |= config.model_dump() | dict(sizes=[5, 3, 3, 2], mean=0., std=1.)
    save(tmp_path/'model.safetensors', values)
    assert names(load_model(tmp_path)[0].modules()) == names(model.modules())

def test_shortcuts_have_no_effect_without_layers_of_one_size(saved):
    model, path, values = saved
    save(path, values | {'residual': True})
    assert len(load_model(path)[0].layers) == len(model.layers)

def test_no_dropout_is_a_description_too(tmp_path):
    model = build_model(Config(hidden=[]), 3, 2)
    values = {f'model.{name}': t for name, t in model.state_dict().items()}
    values |= dict(sizes=[3, 2], hidden=[], mean=0, std=1)
    save(tmp_path/'model.safetensors', values)
    assert torch.equal(load_model(tmp_path)[0].state_dict()['0.w'], model.layers[0].w)

def test_a_network_of_pytorch_comes_back(tmp_path):
    config = Config(hidden=[3], model='torch', dropout=0.2)
    model = build_model(config, 5, 2).eval()
    values = {f'model.{name}': t.detach() for name, t in model.state_dict().items()}
    values |= config.model_dump() | dict(sizes=[5, 3, 2], mean=0., std=1.)
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

@pytest.mark.parametrize('name', ['handmade', 'torch'])
def test_settings_of_version_0_1_0_have_todays_names(name):
    path = V010/f'{name}.safetensors'
    _, info = load_model(path)
    assert not {'smoothing', 'decay', 'average', 'whole'} & info.keys()
    config = Config(**{name: info[name] for name in NAMES if name in info})
    assert config.hidden == info['sizes'][1:-1] and not config.fuse
    assert config.label_smoothing == load(path)['smoothing']

def test_runs_of_version_0_1_0_can_be_resumed():
    path = V010/'handmade.safetensors'
    info = upgrade(load(path))
    config = Config(**{name: info[name] for name in NAMES if name in info})
    learn = build_learner(config, path)
    resume_training(learn, path)
    assert [learn.step, learn.n_steps, len(learn.history)] == [10, 20, 1]
