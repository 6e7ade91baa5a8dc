"Files that are whole, runs that are resumed bit for bit, and Ctrl-C."
import errno
import json
import math
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save as to_safetensors
from torch import nn

from fcnet.checkpoint import (SIGNALS, Checkpoint, HistoryFile, atomic_write, checksum, load,
                              load_weights, save)
from fcnet.classify import CrossEntropy
from fcnet.data import Data
from fcnet.layers import Linear, ReLU, Sequential
from fcnet.learner import Callback, History, Learner, Schedule
from fcnet.nn_module import MLP
from fcnet.optim import SGD, AdamW


def fresh(data, *callbacks, seed=0, make=SGD, bs=64, lr=0.1, **settings):
    "A learner as a new process might make it."
    g = torch.Generator().manual_seed(seed)
    model = Sequential([Linear(784, 50, generator=g), ReLU(),
                        Linear(50, 10, std=0.02, generator=g)])
    opt = make(model.parameters(), lr=lr, **settings)
    return Learner(model, data, opt, CrossEntropy(), bs=bs,
                   callbacks=[Schedule(), *callbacks], generator=g)

@pytest.fixture
def small(digits):
    return Data(*(t[:128] for t in digits))

@pytest.fixture
def path(in_tmp):
    return in_tmp/'model.safetensors'

@pytest.fixture
def tensors():
    return {'w': torch.randn(5, 3), 'n': torch.tensor([7])}

def same_state(a, b):
    assert a.keys() == b.keys()
    assert a['training'] == b['training']
    for name in a.keys() - {'training'}: assert torch.equal(a[name], b[name]), name

class StopAt(Callback):
    def __init__(self, at): self.at = at
    def after_batch(self, learn): learn.stopped = (learn.epoch, learn.batch) == self.at

class Press(Callback):
    "Press Ctrl-C after the step `at`, so many times."
    def __init__(self, at, times=1):
        self.at = at
        self.times = times
    def after_batch(self, learn):
        if learn.step != self.at: return
        for _ in range(self.times): signal.raise_signal(signal.SIGINT)


# ---- a file that is always whole

def test_atomic_write_replaces_a_file_and_leaves_no_other(in_tmp):
    for content in (b'old', b'new'): atomic_write('note.txt', content)
    assert [p.name for p in in_tmp.iterdir()] == ['note.txt']
    assert Path('note.txt').read_bytes() == b'new'

def test_all_of_it_is_on_the_disk_before_it_gets_its_name(path, monkeypatch):
    path.write_bytes(b'what was there')
    synced = []
    fsync = os.fsync
    def watched(fd):
        synced.append([os.fstat(fd).st_size, os.fstat(fd).st_ino, path.read_bytes()])
        fsync(fd)
    monkeypatch.setattr(os, 'fsync', watched)
    atomic_write(str(path), b'short')
    assert synced == [[5, path.stat().st_ino, b'what was there']]

@pytest.mark.parametrize('error', [ZeroDivisionError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_the_old_file(path, monkeypatch, error):
    path.write_bytes(b'old')
    def fails(*_): raise error
    monkeypatch.setattr(os, 'replace', fails)
    with pytest.raises(error): atomic_write(path, b'new')
    assert path.read_bytes() == b'old'
    assert list(path.parent.iterdir()) == [path]

def test_a_full_disk_is_an_error_that_names_the_file(path, monkeypatch):
    def full(*_): raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'") as e:
        atomic_write(path, b'new')
    assert e.value.errno == errno.ENOSPC and not list(path.parent.iterdir())

def test_a_missing_folder_is_an_error_that_names_the_file(in_tmp):
    with pytest.raises(FileNotFoundError, match="nowhere/note.txt'$"):
        atomic_write('nowhere/note.txt', b'new')

def test_a_link_is_replaced_not_followed(in_tmp):
    Path('target').write_bytes(b'precious')
    Path('link').symlink_to('target')
    atomic_write('link', b'new')
    assert Path('target').read_bytes() == b'precious' and not Path('link').is_symlink()


# ---- save and load

def test_what_is_loaded_is_what_was_saved(path, tensors):
    save(path, {**tensors, 'sizes': [5, 3], 'note': 'kept'})
    values = load(path)
    assert values.keys() == {'w', 'n', 'sizes', 'note'}
    for name, t in tensors.items(): assert torch.equal(values[name], t)
    assert values['sizes'] == [5, 3] and values['note'] == 'kept'

@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16,
                                   torch.int64, torch.uint8, torch.bool])
def test_every_dtype_and_shape_comes_back(path, dtype):
    shapes = [(), (0,), (3,), (2, 3), (2, 1, 2)]
    values = {str(shape): torch.randint(2, shape).to(dtype) for shape in shapes}
    save(path, values)
    for name, t in load(path).items():
        assert t.dtype == dtype and torch.equal(t, values[name])

def test_shared_and_transposed_tensors_can_be_saved(path):
    w = nn.Parameter(torch.randn(2, 3))
    save(path, {'a': w, 'b': w, 'c': w.T})
    values = load(path)
    for name, t in (('a', w), ('b', w), ('c', w.T)): assert torch.equal(values[name], t)
    assert not values['a'].requires_grad

def test_the_name_must_end_in_safetensors(in_tmp):
    with pytest.raises(ValueError, match='a.json: expected .* ends in .safetensors'):
        save('a.json', {})
    assert not list(in_tmp.iterdir())

def test_values_that_are_no_json_are_not_saved(path):
    save(path, {'a': 1})
    with pytest.raises(TypeError, match='not JSON serializable'):
        save(path, {'f': print})
    assert load(path) == {'a': 1}

def test_every_cut_is_found(path, tensors):
    save(path, {**tensors, 'sizes': [5, 3]})
    whole = path.read_bytes()
    for cut in (0, 4, 60, len(whole)//2, len(whole)-1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match='not a whole safetensors file'): load(path)

def test_every_turned_bit_is_found(path, tensors):
    save(path, {**tensors, 'sizes': [5, 3]})
    whole = path.read_bytes()
    for at in range(9, len(whole), 7):
        altered = bytearray(whole)
        altered[at] ^= 1
        path.write_bytes(altered)
        with pytest.raises(ValueError, match=str(path)): load(path)

def test_a_turned_bit_in_a_tensor_is_told_as_such(path, tensors):
    save(path, tensors)
    altered = bytearray(path.read_bytes())
    altered[-20] ^= 1
    path.write_bytes(altered)
    with pytest.raises(ValueError, match='altered since it was written'): load(path)

def test_a_missing_file_and_a_folder_are_not_found(in_tmp):
    for name in ('nothing', str(in_tmp)):
        with pytest.raises(FileNotFoundError, match=f'{name}: there is no such file'):
            load(name)

def test_other_files_are_refused(path, tensors):
    path.write_bytes(b'P1 a picture?')
    with pytest.raises(ValueError, match='not a whole safetensors'): load(path)
    path.write_bytes(to_safetensors(tensors))
    with pytest.raises(ValueError, match='safetensors, but not of fcnet'): load(path)

@pytest.mark.parametrize('text', ['['*10**5, '[1', '[]', '3', '[1]', '{"w": 1}'])
def test_values_that_cannot_be_read_are_refused(path, tensors, text):
    header = {'fcnet': text, 'sha256': checksum(tensors, text)}
    path.write_bytes(to_safetensors(tensors, header))
    with pytest.raises(ValueError, match='its values cannot be read'): load(path)

def test_the_checksum_sees_values_dtypes_shapes_names_and_the_text():
    z = torch.zeros(2, 3)
    variants = [z, z.T.contiguous(), z.int(), z.flatten(), z+1]
    sums = {checksum({'a': t}) for t in variants}
    sums |= {checksum({'b': z}), checksum({'a': z}, ' '), checksum({})}
    assert len(sums) == 8 and all(len(s) == 64 for s in sums)

def test_the_checksum_sees_neither_order_nor_layout():
    a = torch.randn(2, 3)
    b = torch.ones(2)
    assert checksum({'a': a, 'b': b}) == checksum({'b': b, 'a': a.T.contiguous().T})

def test_the_checksum_of_a_known_file_stays_what_it_was():
    "Files of all versions must be readable: computed by version 0.1.0."
    t = {'a': torch.arange(3.), 'b': torch.tensor(7)}
    assert checksum(t, '{"x": 1}') == KNOWN

KNOWN = '5e4f92f4ad0069bc125a1984a97c42d0b1c8cd51bad17416edb31c33d98a5001'


# ---- resuming, bit for bit

class Noise(Callback):
    "Draws from a generator of its own."
    def __init__(self, seed): self.generator = torch.Generator().manual_seed(seed)
    def before_batch(self, learn):
        learn.x = learn.x + torch.rand(learn.x.shape, generator=self.generator)/10

class Drop(ReLU):
    "A layer that draws from a generator of its own."
    def __init__(self, seed):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)
    def fwd(self, x):
        out = super().fwd(x)[0]*(torch.rand(x.shape, generator=self.generator) > 0.2)
        return out, out

def torch_run(data, seed, at=None):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(784, 20), nn.ReLU(), nn.Dropout(0.5),
                        nn.BatchNorm1d(20), nn.Linear(20, 10))
    opt = torch.optim.AdamW(net.parameters(), lr=0.01)
    return Learner(net, data, opt, F.cross_entropy, bs=16,
                   callbacks=[Schedule(), Noise(seed), StopAt(at)])

def our_optimizer_run(data, seed, at=None):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(784, 20), nn.ReLU(), nn.Dropout(0.5),
                        nn.Linear(20, 10))
    return Learner(net, data, AdamW(net.parameters(), lr=0.01), F.cross_entropy, bs=16,
                   callbacks=[Schedule(), Noise(seed), StopAt(at)])

def hand_made_run(data, seed, at=None):
    g = torch.Generator().manual_seed(seed)
    model = Sequential([Linear(784, 20, generator=g), Drop(seed),
                        Linear(20, 10, generator=g)])
    opt = SGD(model.parameters(), lr=0.1, momentum=0.5)
    return Learner(model, data, opt, CrossEntropy(), bs=16, generator=g,
                   callbacks=[Noise(seed), StopAt(at)])

@pytest.mark.parametrize('make', [torch_run, our_optimizer_run, hand_made_run])
@pytest.mark.parametrize('at', [(1, 0), (1, 3)])
def test_a_resumed_run_ends_in_the_same_state(small, in_tmp, make, at):
    through = make(small, 0)
    through.fit(3)
    expected = deepcopy(through.state_dict())
    stopped = make(small, 0, at)
    stopped.fit(3)
    assert (stopped.epoch, stopped.batch) == at
    assert (stopped.order is None) == (at[1] == 0)
    stopped.save('run.safetensors')
    resumed = make(small, 5)
    assert resumed.load('run.safetensors') == {}
    resumed.fit()
    same_state(resumed.state_dict(), expected)

def test_the_stopped_learner_itself_can_go_on(small):
    through = hand_made_run(small, 0)
    through.fit(3)
    expected = deepcopy(through.state_dict())
    stopped = hand_made_run(small, 0, (1, 3))
    stopped.fit(3)
    stopped.callbacks[-1].at = None
    stopped.fit()
    same_state(stopped.state_dict(), expected)

def test_a_run_of_momentum_and_schedule_resumes_after_ctrl_c_with_checkpoint(few, path):
    def run(seed, at=None):
        return fresh(few, Press(at), Checkpoint(path, sizes=[784, 50, 10]), seed=seed,
                     momentum=0.9, weight_decay=1e-4)
    through = run(0)
    through.fit(4)
    expected = deepcopy(through.state_dict())
    stopped = run(0, 25)
    stopped.fit(4)
    assert [stopped.epoch, stopped.batch, stopped.done] == [2, 5, False]
    resumed = run(1)
    assert resumed.load(path) == {'sizes': [784, 50, 10]}
    resumed.fit()
    same_state(resumed.state_dict(), expected)

def test_a_killed_run_resumes_from_its_last_epoch(few, path):
    def run(seed, *more):
        return fresh(few, *more, Checkpoint(path), seed=seed, momentum=0.9)
    class PowerCut(Callback):
        def after_batch(self, learn):
            if learn.step == 25: raise SystemExit
    class StandIn(Callback): pass
    StandIn.__name__ = 'PowerCut' # of the same kind, without the cut
    through = run(0, StandIn())
    through.fit(3)
    expected = deepcopy(through.state_dict())
    with pytest.raises(SystemExit): run(0, PowerCut()).fit(3)
    resumed = run(1, StandIn())
    resumed.load(path)
    assert resumed.step == 20
    resumed.fit()
    same_state(resumed.state_dict(), expected)

def test_an_order_of_which_no_step_was_made_is_kept(small, in_tmp):
    class Fails(Callback):
        def before_step(self, learn): raise RuntimeError('not yet')
    learn = fresh(small, Fails())
    with pytest.raises(RuntimeError, match='not yet'): learn.fit(1)
    assert learn.order is not None and learn.step == 0
    learn.save('failed.safetensors')
    other = fresh(small, Fails(), seed=1)
    other.load('failed.safetensors')
    assert torch.equal(other.order, learn.order)


# ---- what is kept beside the state

def test_extra_values_come_back_and_are_no_part_of_the_state(small, path):
    learn = fresh(small)
    learn.save(path, note='kept', mean=torch.tensor([0.5]))
    extra = fresh(small, seed=1).load(path)
    assert extra.keys() == {'note', 'mean'} and extra['note'] == 'kept'
    assert torch.equal(extra['mean'], torch.tensor([0.5]))

@pytest.mark.parametrize('name', ['order', 'training', 'model.0.w', 'random.0',
                                  'opt.x'])
def test_names_of_the_state_are_taken(small, path, name):
    with pytest.raises(ValueError, match=f'save: {name} is a name of the state'):
        fresh(small).save(path, **{name: 1})
    assert not path.exists()

def test_names_that_only_resemble_the_state_are_free(small, path):
    extra = {'model': 1, 'orders': 2, 'optimizer': 3, 'randomness': 4}
    fresh(small).save(path, **extra)
    assert fresh(small).load(path) == extra

@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_weights_that_are_not_finite_are_not_saved(small, path, bad):
    learn = fresh(small)
    learn.save(path)
    kept = path.read_bytes()
    learn.model.layers[0].b[3] = bad
    with pytest.raises(FloatingPointError, match='not saved, model.0.b is not finite'):
        learn.save(path)
    assert path.read_bytes() == kept
    learn.load(path) # what is there is whole, and finite
    assert learn.model.layers[0].b.isfinite().all()

@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_numbers_about_the_weights_are_saved_as_they_are(small, path, value):
    learn = fresh(small)
    learn.fit(1)
    learn.history[-1] |= {'valid_loss': value, 'seconds': 3}
    learn.save(path)
    other = fresh(small, seed=1)
    other.load(path)
    assert str(other.history) == str(learn.history) # nan differs from itself

@pytest.mark.parametrize('value', [torch.tensor(1.), 'x', None, [1]], ids=str)
def test_what_is_no_number_in_the_history_is_not_saved(small, path, value):
    learn = fresh(small)
    learn.fit(1)
    learn.history[-1]['note'] = value
    words = 'is not saved: the history has .*, expected numbers'
    with pytest.raises(ValueError, match=words): learn.save(path)
    assert not path.exists()

def test_a_metric_that_is_nan_at_first_ends_nothing(small, path):
    learn = fresh(small, Checkpoint(path))
    learn.metrics = {'late': lambda scores, y: math.nan if learn.epoch < 2 else 1.}
    learn.fit(3)
    late = [row['valid_late'] for row in load(path)['training']['history']]
    assert math.isnan(late[0]) and late[1:] == [1., 1.]

def test_an_optimizers_memory_that_is_not_finite_is_not_saved(small, path):
    learn = fresh(small, momentum=0.9)
    learn.fit(1)
    learn.opt.state[learn.model.layers[0].b]['momentum_buffer'][0] = math.nan
    with pytest.raises(FloatingPointError, match='opt.1.momentum_buffer is not finite'):
        learn.save(path)


# ---- files that do not fit, or cannot be

def unchanged(learn, path, words):
    "Loading is refused in these words, and the learner is as it was."
    before = deepcopy(learn.state_dict())
    with pytest.raises(ValueError, match=words): learn.load(path)
    same_state(learn.state_dict(), before)

def a_learner(data, **settings): return fresh(data, seed=1, momentum=0.9, **settings)

@pytest.fixture
def saved(few, path):
    "A file of a run of one epoch, and what is in it."
    learn = fresh(few, momentum=0.9)
    learn.fit(1)
    learn.save(path)
    return load(path)

def test_learners_of_another_kind_are_told_what_differs(few, small, path, saved):
    others = {"'callbacks': .'Schedule', 'Callback'.":
                  fresh(few, Callback(), momentum=0.9),
              "'batch size': 32": fresh(few, bs=32, momentum=0.9),
              "'optimizer': 'AdamW'": fresh(few, make=AdamW),
              "'momentum': 0.5": fresh(few, momentum=0.5),
              "'training rows': 128": fresh(small, momentum=0.9)}
    for words, learn in others.items():
        unchanged(learn, path, f'^{path}: the run had .*{words}')

def test_a_model_with_other_names_is_refused(few, path, saved):
    net = nn.Sequential(nn.Linear(784, 30), nn.ReLU(), nn.Linear(30, 10))
    opt = SGD(net.parameters(), lr=0.1, momentum=0.9)
    learn = Learner(net, few, opt, F.cross_entropy, callbacks=[Schedule()],
                    generator=torch.Generator())
    unchanged(learn, path, f'^{path}: model.0.weight is nothing')

def test_a_file_without_a_run_is_refused(few, path):
    save(path, {})
    unchanged(fresh(few), path, f'^{path}: holds no training run')

def test_no_part_of_the_state_may_be_missing(few, path, saved):
    names = [name for name in saved if not name.startswith('opt.')]
    assert len(names) == 7
    for drop in names:
        save(path, {name: value for name, value in saved.items() if name != drop})
        unchanged(a_learner(few), path, f'^{path}: ')

def test_without_velocities_a_run_can_be_loaded(few, path, saved):
    save(path, {name: v for name, v in saved.items() if not name.startswith('opt.')})
    learn = a_learner(few)
    learn.load(path)
    assert learn.step == 10 and not any(learn.opt.state.values())

@pytest.mark.parametrize('drop', ['kind', 'step', 'n_steps', 'history', 'opt_state',
                                  'rates'])
def test_no_entry_may_be_missing(few, path, saved, drop):
    training = {name: v for name, v in saved['training'].items() if name != drop}
    save(path, {**saved, 'training': training})
    unchanged(a_learner(few), path, f'^{path}: ')

def row(**changes):
    names = ('epoch', 'lr', 'train_loss', 'train_accuracy', 'valid_loss',
             'valid_accuracy')
    return {**{name: 1 for name in names}, **changes}

CRAFTED = [
    dict(rates=[]), dict(rates=[[0.1]]), dict(rates=[[-1, None]]),
    dict(rates=[[None, None]]),
    dict(rates=[[1, math.nan]]), dict(rates=[['1', None]]), dict(rates=[[1, math.inf]]),
    dict(rates=[[0.1, None]]*2), dict(rates=[[0.1, None, None]]), dict(rates=3),
    dict(step=1), dict(step=-10), dict(step=20), dict(step=10.), dict(step=True),
    dict(step=None), dict(n_steps=11), dict(n_steps=0), dict(n_steps=10.),
    dict(n_steps='10'),
    dict(history=3), dict(history=[[1]]), dict(history=[{}]),
    dict(history=[row(lr='1')]),
    dict(history=[row(epoch=1e308)]), dict(history=[row(lr=math.nan)]),
    dict(history=[row(lr=-math.inf)]), dict(history=[row(lr=None)]),
    dict(history=[row(epoch=True)]), dict(history=[row(more='1')]),
    dict(history=[row(more=[1])]), dict(opt_state=[]),
    dict(opt_state=None),
    dict(opt_state={'opt.0.momentum_buffer': 'x'}), dict(kind={}), dict(kind=[])]

@pytest.mark.parametrize('change', CRAFTED, ids=str)
def test_numbers_of_no_run_are_refused(few, path, saved, change):
    save(path, {**saved, 'training': {**saved['training'], **change}})
    unchanged(a_learner(few), path, f'^{path}: ')

def test_the_row_that_is_altered_above_is_a_right_one(few, path, saved):
    save(path, {**saved, 'training': {**saved['training'], 'history': [row()]}})
    learn = a_learner(few)
    learn.load(path)
    assert learn.history == [row()]

@pytest.mark.parametrize('training', [None, 3, [], 'x', {}], ids=str)
def test_a_run_that_is_none_is_refused(few, path, saved, training):
    save(path, {**saved, 'training': training})
    unchanged(a_learner(few), path, f'^{path}: ')

def other_tensors():
    return {'random.0': torch.zeros(3).byte(),
            'random.1': torch.full_like(torch.Generator().get_state(), 7),
            'random.2': torch.get_rng_state(),
            'random.x': torch.zeros(3),
            'opt.x.y': torch.zeros(3),
            'opt.0.momentum_buffer': torch.zeros(3),
            'opt.1.momentum_buffer': torch.full((50,), math.nan),
            'opt.2.momentum_buffer': torch.zeros(50, 10).cfloat(),
            'opt.3.momentum_buffer': torch.zeros(10).half(),
            'opt.4.momentum_buffer': torch.zeros(10),
            'model.0.w': torch.zeros(784, 50, dtype=torch.int8),
            'model.0.b': torch.zeros(49),
            'model.2.b': torch.full((10,), math.inf),
            'model.4.w': torch.zeros(3),
            'order': torch.arange(639)}

@pytest.mark.parametrize('name', other_tensors())
def test_tensors_of_no_run_are_refused(few, path, saved, name):
    save(path, {**saved, name: other_tensors()[name]})
    unchanged(a_learner(few), path, f'^{path}: ')

@pytest.mark.parametrize('name', ['order', 'model.0.w', 'random.0'])
def test_values_where_tensors_belong_are_refused(few, path, saved, name):
    values = {**saved, name: [1, 2]}
    values['training'] = {**saved['training'], 'step': 5}
    save(path, values)
    unchanged(a_learner(few), path, f'^{path}: ')

ORDERS = {'one missing': lambda order: order[1:], 'all the same': lambda order: order*0,
          'floats': lambda order: order.float(), 'from -1': lambda order: order - 1,
          'a matrix': lambda order: order[None]}

@pytest.mark.parametrize('spoil', ORDERS.values(), ids=ORDERS)
def test_orders_that_are_none_are_refused(few, path, saved, spoil):
    training = {**saved['training'], 'step': 5, 'n_steps': 10}
    order = torch.arange(640)
    save(path, {**saved, 'training': training, 'order': order.flip(0)})
    a_learner(few).load(path)
    save(path, {**saved, 'training': training, 'order': spoil(order)})
    unchanged(a_learner(few), path, f'^{path}: ')

def test_within_an_epoch_there_must_be_an_order(few, path, saved):
    save(path, {**saved, 'training': {**saved['training'], 'step': 5}})
    unchanged(a_learner(few), path, f'^{path}: order is nothing')

def test_ctrl_c_while_loading_changes_nothing(few, path, saved, monkeypatch):
    def interrupted(*_, **__): raise KeyboardInterrupt
    learn = a_learner(few)
    before = deepcopy(learn.state_dict())
    monkeypatch.setattr(SGD, 'update', interrupted)
    with pytest.raises(KeyboardInterrupt): learn.load(path)
    same_state(learn.state_dict(), before)

def test_an_error_without_words_has_its_name_as_words(few, path, saved, monkeypatch):
    def fails(*_, **__): raise AssertionError
    monkeypatch.setattr(SGD, 'update', fails)
    unchanged(a_learner(few), path, f'^{path}: AssertionError$')

def test_words_over_several_lines_become_one(few, path, saved, monkeypatch):
    def fails(*_, **__): raise RuntimeError('one\n  two')
    monkeypatch.setattr(SGD, 'update', fails)
    unchanged(a_learner(few), path, f'^{path}: one two$')


# ---- files of version 0.1.0, written by its code, after 13 of 20 steps

def old_file(name): return Path(__file__).parent/'v0.1.0'/f'run-{name}.safetensors'

def old_data():
    g = torch.Generator().manual_seed(7)
    x = torch.randn(60, 6, generator=g)
    y = (x@torch.randn(6, 3, generator=g)).argmax(1)
    return Data(x[:40], y[:40], x[40:], y[40:])

def old_hand_made():
    g = torch.Generator().manual_seed(1)
    model = Sequential([Linear(6, 5, generator=g), ReLU(), Linear(5, 3, generator=g)])
    opt = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    return Learner(model, old_data(), opt, CrossEntropy(), bs=8, generator=g,
                   callbacks=[Schedule(), StopAt(None)])

def old_torch():
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Dropout(0.1), nn.Linear(5, 3))
    opt = AdamW(net.parameters(), lr=0.01)
    return Learner(net, old_data(), opt, F.cross_entropy, bs=8,
                   callbacks=[Schedule(), StopAt(None)])

@pytest.mark.parametrize('name, make, end', [
    ('handmade', old_hand_made, (0.57781517, 0.90062559)),
    ('torch', old_torch, (0.95412189, 1.03035522))])
def test_a_run_of_version_0_1_0_can_be_resumed(name, make, end):
    values = load(old_file(name))
    assert values['sizes'] == [6, 5, 3] and values['training']['step'] == 13
    learn = make()
    assert learn.load(old_file(name)) == {'sizes': [6, 5, 3]}
    state = learn.state_dict()
    for key, value in values['training'].items():
        if key != 'rates': assert state['training'][key] == value
    (lr, peak), = values['training']['rates']
    assert state['training']['rates'] == [[peak or lr, None]] # a schedule starts from it
    for key, t in state.items():
        if key != 'training': assert torch.equal(t, values[key])
    learn.fit()
    x, y, x_valid, _ = learn.data # as where the old code was never stopped
    train_loss = learn.evaluate(x[:len(x_valid)], y[:len(x_valid)])['loss']
    found = train_loss, learn.history[-1]['valid_loss']
    assert found == pytest.approx(end, rel=1e-4)
    assert len(learn.history) == 4


# ---- the callback

def test_checkpoint_saves_at_the_start_after_epochs_and_when_stopped(few, path, capsys):
    kept = []
    class Look(Callback):
        def look(self, learn): kept.append(load(path))
        before_fit = after_epoch = after_fit = look
    look = Look()
    look.last = True
    fresh(few, Checkpoint(path, note='kept'), Press(14), look).fit(3)
    assert [(k['note'], k['training']['step']) for k in kept] == [
        ('kept', 0), ('kept', 10), ('kept', 14)]
    assert capsys.readouterr().out == (
        f'stopped in epoch 2 after batch 4 of 10; saved in {path}\n')

def test_the_file_has_what_the_other_callbacks_do_at_the_end(few, path):
    class PutBack(Callback):
        def after_fit(self, learn): learn.model.layers[0].b += 1
    learn = fresh(few, Checkpoint(path), PutBack())
    learn.fit(1)
    assert torch.equal(load(path)['model.0.b'], learn.model.layers[0].b)

@pytest.mark.parametrize('number, code', [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_notice_to_end_is_obeyed_once_the_run_is_saved(few, path, capsys, number, code):
    class Notice(Callback):
        def after_batch(self, learn):
            if learn.step == 3: signal.raise_signal(number)
    before = signal.getsignal(number)
    learn = fresh(few, Notice(), Checkpoint(path))
    with pytest.raises(SystemExit) as error: learn.fit(1)
    assert error.value.code == code and load(path)['training']['step'] == 3
    assert signal.getsignal(number) is before and 'saved in' in capsys.readouterr().out

def test_a_signal_that_is_ignored_stays_ignored(few, path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) # as by nohup
    try:
        learn = fresh(few, Checkpoint(path), Press(3))
        learn.fit(1)
        assert learn.done and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally: signal.signal(signal.SIGINT, before)

def test_another_callback_that_fails_leaves_no_handler(few, path):
    class Fails(Callback):
        def after_fit(self, learn): raise RuntimeError('first')
    before = [signal.getsignal(number) for number in SIGNALS]
    learn = fresh(few, Fails(), Checkpoint(path), Fails())
    with pytest.raises(RuntimeError, match='first'): learn.fit(1)
    assert [signal.getsignal(number) for number in SIGNALS] == before

def test_callbacks_that_set_the_flag_take_no_ctrl_c_back(few, path):
    class Never(Callback):
        def after_batch(self, learn): learn.stopped = False
        def after_epoch(self, learn): learn.stopped = False
    learn = fresh(few, Press(3), Checkpoint(path), Never())
    learn.fit(3)
    assert learn.step == 3 == load(path)['training']['step']

def test_ctrl_c_in_a_fit_within_a_fit_stops_both(few, in_tmp):
    class Inner(Callback):
        def after_epoch(self, learn):
            self.learn = fresh(few, Press(3), Checkpoint('inner.safetensors'))
            self.learn.fit(2)
    before = signal.getsignal(signal.SIGINT)
    inner = Inner()
    learn = fresh(few, inner, Checkpoint('outer.safetensors'))
    learn.fit(3)
    assert inner.learn.step == 3 and learn.epoch == 1
    assert signal.getsignal(signal.SIGINT) is before

def test_a_learner_with_a_checkpoint_can_be_copied(few, path):
    learn = fresh(few, Checkpoint(path))
    learn.fit(1)
    deepcopy(learn).fit(1)

@pytest.mark.parametrize('kind', ['ours', 'torch'])
@pytest.mark.parametrize('whole', [True, False])
def test_weights_of_any_file_can_be_read_for_prediction(few, path, kind, whole):
    def make(seed):
        torch.manual_seed(seed)
        if kind == 'torch': return MLP([784, 10, 10])
        return Sequential([Linear(784, 10), ReLU(), Linear(10, 10)])
    model = make(0)
    loss = F.cross_entropy if kind == 'torch' else CrossEntropy()
    learn = Learner(model, few, SGD(model.parameters(), lr=0.1), loss, callbacks=[])
    learn.fit(1)
    if whole: learn.save(path, note=1)
    else: save(path, model.state_dict())
    other = make(1).train()
    assert load_weights(path, other) is other and not other.training
    assert torch.equal(other(few.x_valid), learn.predict(few.x_valid))
    with pytest.raises((ValueError, RuntimeError)): load_weights(path, MLP([784, 3]))

def test_the_second_ctrl_c_interrupts_and_saves_nothing(few, path, capsys):
    handler = signal.getsignal(signal.SIGINT)
    learn = fresh(few, Checkpoint(path), Press(1, times=2))
    with pytest.raises(KeyboardInterrupt): learn.fit(1)
    assert load(path)['training']['step'] == 0 # as it was at the start
    assert signal.getsignal(signal.SIGINT) is handler and capsys.readouterr().out == ''

def test_ctrl_c_is_as_before_after_the_fit(few, path):
    handler = signal.getsignal(signal.SIGINT)
    inside = []
    class Look(Callback):
        def after_batch(self, learn): inside.append(signal.getsignal(signal.SIGINT))
    checkpoint = Checkpoint(path)
    learn = fresh(few, checkpoint, Look())
    for _ in range(2):
        learn.fit(1)
        assert signal.getsignal(signal.SIGINT) is handler
    assert handler not in inside
    other = signal.signal(signal.SIGINT, signal.SIG_IGN) # a handler of the user's
    try:
        checkpoint.after_fit(learn) # nothing is left to put back
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, other)

def test_ctrl_c_after_the_last_step_is_too_late(few, path, capsys):
    learn = fresh(few, Checkpoint(path), Press(10))
    learn.fit(1)
    assert learn.done and capsys.readouterr().out == ''

def test_any_callback_that_stops_a_run_has_it_saved(few, path, capsys):
    learn = fresh(few, StopAt((0, 3)), Checkpoint(path))
    learn.fit(1)
    assert load(path)['training']['step'] == 3
    assert capsys.readouterr().out.startswith('stopped in epoch 1 after batch 3 of 10')

def test_one_of_many_processes_writes(few, path, capsys):
    checkpoint = Checkpoint(path)
    checkpoint.writes = False
    learn = fresh(few, checkpoint, Press(3))
    learn.fit(1)
    assert learn.step == 3 and not path.exists() and capsys.readouterr().out == ''

def test_a_folder_that_cannot_be_written_to_is_known_before_the_first_step(few, in_tmp):
    learn = fresh(few, Checkpoint('nowhere/run.safetensors'))
    with pytest.raises(FileNotFoundError, match='nowhere'): learn.fit(1)
    assert learn.step == 0

def test_a_loss_of_nan_leaves_the_good_file(few, path):
    learn = fresh(few, Checkpoint(path))
    learn.fit(1)
    weights = load(path)
    class Spoil(Callback):
        def before_batch(self, learn): learn.x = learn.x*math.inf
    learn.callbacks.append(Spoil())
    with pytest.raises(FloatingPointError, match='the loss is nan in epoch 1, batch 1'):
        learn.fit(1)
    after = load(path)
    for name in ('model.0.w', 'model.0.b', 'model.2.w', 'model.2.b'):
        assert torch.equal(after[name], weights[name])

def test_where_no_signal_can_be_caught_training_works_all_the_same(few, path):
    learn = fresh(few, Checkpoint(path))
    learn.fit(1)
    with ThreadPoolExecutor() as pool: pool.submit(learn.fit, 1).result()
    assert len(learn.history) == 2 and isinstance(learn.history, History)
    other = fresh(few, Checkpoint(path), seed=3)
    with ThreadPoolExecutor() as pool: pool.submit(other.fit, 1).result()
    assert load(path)['training']['step'] == 10

# ---- the history, for other programs

def test_the_history_file_has_each_epoch_as_soon_as_it_is_done(few, in_tmp):
    seen = []
    class Look(Callback):
        def after_epoch(self, learn): seen.append((in_tmp/'h.csv').read_text())
    learn = fresh(few, HistoryFile('h.csv'), Look())
    learn.fit(3)
    assert [text.count('\n') for text in seen] == [2, 3, 4] # and a head
    assert all(after.startswith(before) for before, after in zip(seen, seen[1:]))
    head, *rows = [line.split(',') for line in seen[-1].splitlines()]
    assert head == list(learn.history[0])
    assert [[float(v) for v in row] for row in rows] == [
        [float(v) for v in row.values()] for row in learn.history]
    assert os.listdir() == ['h.csv'] # nothing half-written is left

def test_a_run_is_resumed_with_or_without_a_history_file(few, path):
    learn = fresh(few, HistoryFile('h.csv'))
    learn.fit(1)
    learn.save(path)
    for callbacks in ([], [HistoryFile('other.csv')]): fresh(few, *callbacks).load(path)

def test_one_of_many_processes_writes_the_history(few, in_tmp):
    callback = HistoryFile('h.csv')
    callback.writes = False
    fresh(few, callback).fit(1)
    assert os.listdir() == []
