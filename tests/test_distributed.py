"Tests of fcnet.distributed. This file is also the program that `torchrun` starts."
import io
import json
import os
import socket
import subprocess
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from threading import Lock
from time import monotonic, sleep

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

import fcnet.distributed
from fcnet.checkpoint import Checkpoint
from fcnet.classify import CrossEntropy
from fcnet.data import Data
from fcnet.deep import BatchNorm
from fcnet.distributed import average, join, leave, parallel, rank_and_world
from fcnet.layers import Linear, ReLU, Sequential, Tanh
from fcnet.learner import Callback, Learner, Progress, Schedule
from fcnet.optim import SGD, Adam, one_cycle
from fcnet.regularize import EMA, Dropout
from fcnet.streaming import Blocks, FromFile, map_idx

pytestmark = pytest.mark.processes
KINDS = ('ours', 'torch')

# ---- what one process and two processes train ----

def learner(kind, p=0., seed=0, callbacks=(), bs=32):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(333, 20, generator=g).double()
    y = torch.randint(3, (333,), generator=g)
    torch.manual_seed(seed)
    if kind == 'torch':
        model = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Dropout(p),
                              nn.Linear(8, 3))
        model.double()
        loss = F.cross_entropy
    else:
        model = Sequential([Linear(20, 8), ReLU(), Dropout(p, g), Linear(8, 3)])
        model.to(torch.float64)
        loss = CrossEntropy()
    return Learner(model, Data(x, y, x[:101], y[:101]),
                   SGD(model.parameters(), 0.1, 0.9), loss, bs=bs,
                   callbacks=[Schedule(), *callbacks], generator=g)

def weights(learn): return [p.detach().clone() for p in learn.model.parameters()]

def trained(*args, **kwargs):
    learn = parallel(learner(*args, **kwargs))
    learn.fit(5)
    return weights(learn), list(learn.history)

class StopAt(Callback):
    "Ask one rank to stop, once, at a point of the run; as a signal does before a step."
    def __init__(self, point, step, rank=1):
        def stop(learn):
            if learn.step != step or rank_and_world()[0] != rank or self.done: return
            self.done = True
            learn.stopped = True
        self.done = False
        setattr(self, point, stop)

class Note(Callback):
    "Which rows a process learns from; whether the learner is as its class made it."
    def __init__(self):
        self.rows = set()
        self.own_attributes = set()
    def before_batch(self, learn): self.rows.update(learn.x.flatten().tolist())
    def after_batch(self, learn): self.own_attributes |= set(vars(learn))

def file_learner(path, mean=0.13, callbacks=()):
    "From a file, in its own part on each of two ranks."
    g = torch.Generator().manual_seed(3)
    rows = torch.arange(1200)
    y = torch.randint(10, (1200,), generator=g)
    model = Sequential([FromFile(map_idx(path), mean, 0.31),
                        Linear(784, 20, generator=g), ReLU(),
                        Linear(20, 10, generator=g)])
    return Learner(model, Data(rows[:1001], y[:1001], rows[1001:], y[1001:]),
                   SGD(model.parameters(), 0.05, 0.9), CrossEntropy(), bs=64,
                   callbacks=[Schedule(), Blocks(50, 3, 2), *callbacks], generator=g)

def trained_from_file(path):
    note = Note()
    learn = parallel(file_learner(path, callbacks=[note]))
    learn.fit(2)
    return weights(learn), list(learn.history), note.rows

def trained_on_card(kind):
    learn = learner(kind)
    if kind == 'ours': del learn.model.layers[2] # Dropout(0.) and its generator
    learn.model.to('cuda')
    learn.data = learn.data.to('cuda')
    parallel(learn).fit(5)
    return [w.cpu() for w in weights(learn)]

def refusal(learn, epochs=1):
    "The error of a fit on all ranks."
    try: parallel(learn).fit(epochs)
    except (ValueError, FloatingPointError) as e: return f'{type(e).__name__}: {e}'

class SpoilBatch(Callback):
    def before_batch(self, learn): learn.x = learn.x*float('nan')

class Setting(Callback):
    "A callback with a setting of any kind."
    def __init__(self, value): self.value = value

def change_optimizer(learn): learn.opt = Adam(learn.model.parameters(), 0.1)
def change_momentum(learn): learn.opt.param_groups[0]['momentum'] = 0.8
def change_memory(learn):
    for p in learn.model.parameters(): p.grad = torch.ones_like(p)
    learn.opt.step()
    for p in learn.model.parameters(): p.sub_(-0.1) # the weights are what they were
def change_bs(learn): learn.bs = 31
def change_metrics(learn): learn.metrics = {'accuracy': lambda scores, y: 0.}
def change_draws(learn): torch.rand(1, generator=learn.generator)
def change_loss(learn): learn.loss = CrossEntropy(0.1)
def change_weight_of_loss(learn): learn.loss.weight = torch.tensor([1., 2., 3.])
def change_activation(learn): learn.model.layers[1] = Tanh()
def change_dropout(learn): learn.model.layers[2].p = 0.1
def change_dtype(learn):
    learn.model.to(torch.float32)
    learn.opt = SGD(learn.model.parameters(), 0.1, 0.9)
def change_schedule(learn): learn.callbacks[0].shape = lambda step, n_steps: 1.
def change_callbacks(learn): learn.callbacks.append(EMA(0.99))

# What is changed on rank 1 alone, and what the error must name
CHANGES = {change_optimizer: 'settings', change_momentum: 'settings',
           change_memory: 'weights', change_bs: 'settings', change_metrics: 'settings',
           change_draws: 'settings', change_loss: 'loss', change_weight_of_loss: 'loss',
           change_activation: 'layers', change_dropout: 'layers',
           change_dtype: 'weights', change_schedule: 'callbacks',
           change_callbacks: 'settings'}
# Settings of a callback, on rank 0 and on rank 1
DIFFER = {'number': (0.9, 0.99), 'text': ('low', 'high'), 'list': ([1, 2], [1, 3]),
          'tensor': (torch.zeros(2), torch.ones(2)), 'array': (np.zeros(2), np.ones(2)),
          'layer': (Dropout(0.1), Dropout(0.2)), 'torch': (nn.ReLU(), nn.Tanh()),
          'class': (nn.ReLU, nn.Tanh), 'in C': (torch.relu, torch.tanh),
          'function': (one_cycle, rank_and_world),
          'partial': (partial(F.cross_entropy, label_smoothing=0.1), F.cross_entropy)}
ALIKE = {'path': (Path('a'), Path('b')), 'set': ({'a', 'b', 'c'}, {'c', 'b', 'a'}),
         'generator': (torch.Generator().manual_seed(1), torch.Generator()),
         'card': (torch.device('cuda:0'), torch.device('cuda:1')),
         'lock': (Lock(), Lock()),
         'what rank 0 writes': (Checkpoint('a'), Checkpoint('b')),
         'mode': (nn.ReLU().eval(), nn.ReLU())}

def differing(rank):
    "The errors of learners that differ in one thing."
    found = {}
    for change in CHANGES:
        learn = learner('ours')
        if rank == 1: change(learn)
        found[change.__name__] = refusal(learn)
    for name, values in (DIFFER | ALIKE).items():
        found[name] = refusal(learner('ours', callbacks=[Setting(values[rank])]))
    found['epochs'] = refusal(learner('ours'), 1 + rank)
    learn = parallel(learner('ours', callbacks=[Setting(0)]))
    learn.fit(1)
    learn.callbacks[2].value = rank # what a run leaves in a callback
    if rank == 1: learn.loss = CrossEntropy(0.1)
    with pytest.raises(ValueError) as caught: learn.fit(1)
    found['second fit'] = str(caught.value)
    learn.loss = CrossEntropy()
    learn.fit(1)
    return found

# ---- the program of the ranks: it returns what the tests look at ----

def program(rank, folder):
    for name in dir(dist): # pickles, which may hold a program
        if 'object' in name and callable(getattr(dist, name)): delattr(dist, name)
    found = {'place': rank_and_world()}
    mine = [torch.full((2, 3), 1. + rank), torch.tensor(10.*rank)]
    found['average'] = average(mine, (1 + rank)/3)
    found['average kept'] = mine[1].item() == 10*rank

    for kind in KINDS:
        found[kind] = trained(kind)
        found[kind, 'dropout'] = trained(kind, 0.5)
    found['empty share'] = trained('ours', bs=83) # 333 = 4*83 + 1

    found['stop'] = stops = {}
    for point, step in (('after_batch', 15), ('after_batch', 11), ('after_epoch', 22),
                        ('before_fit', 0), ('after_batch', 55), ('before_step', 15)):
        learn = parallel(learner('torch', 0.5, callbacks=[StopAt(point, step)]))
        learn.fit(5)
        stops[point, step] = learn.step
        if not learn.done: learn.fit()
        stops[point, step, 'resumed'] = weights(learn)

    torch.manual_seed(5)
    note = Note()
    learn = parallel(learner('torch', 0.5, callbacks=[note]))
    before = torch.get_rng_state()
    scored = [] # rows of each prediction
    def count(model, inputs, out):
        if not model.training: scored.append(len(out))
    learn.model.register_forward_hook(count)
    learn.fit(1)
    found['global generator kept'] = torch.equal(before, torch.get_rng_state())
    found['scored'] = list(scored)
    found['attributes'] = note.own_attributes
    found['draws'] = torch.rand(5, generator=learn.callbacks[0].noise)
    if rank == 0: # alone, so a prediction that is shared would never end
        with torch.no_grad(): expected = learn.model.eval()(learn.data.x_valid)
        found['outside'] = torch.equal(learn.predict(learn.data.x_valid), expected)

    path = Path(folder)/f'{rank}.safetensors'
    with redirect_stdout(io.StringIO()) as out:
        learn = learner('ours', callbacks=[Progress(), Checkpoint(path)])
        parallel(learn).fit(2)
    found['printed'] = out.getvalue()
    found['wrote'] = path.exists()

    found['refused'] = refused = {}
    refused['weights'] = refusal(learner('ours', seed=rank))
    learn = learner('ours')
    if rank == 1: learn.data.x_train[3, 4] += 1
    refused['data'] = refusal(learn)
    learn = learner('ours')
    if rank == 1: learn.opt.param_groups[0]['lr'] = 0.2
    refused['settings'] = refusal(learn)
    learn = learner('ours')
    learn.generator = torch.default_generator
    refused['generator'] = refusal(learn)
    for kind, layer in (('ours', BatchNorm(8)), ('torch', nn.BatchNorm1d(8).double())):
        learn = learner(kind)
        layers = learn.model.layers if kind == 'ours' else learn.model
        layers[1] = layer
        refused['BatchNorm', kind] = refusal(learn)
    learn = learner('ours')
    learn.callbacks = []
    refused['nothing'] = refusal(learn)
    learn = learner('ours')
    if rank == 1: learn.callbacks.append(SpoilBatch())
    compare = fcnet.distributed._compare_ranks
    fcnet.distributed._compare_ranks = lambda learn, new: None
    refused['nan'] = refusal(learn)
    fcnet.distributed._compare_ranks = compare

    digits = f'{folder}/digits'
    found['file'] = trained_from_file(digits)
    saved = f'{folder}/file.safetensors'
    learn = parallel(file_learner(digits, callbacks=[StopAt('after_batch', 20)]))
    learn.fit(2)
    if rank == 0: learn.save(saved)
    dist.barrier()
    learn = parallel(file_learner(digits, callbacks=[StopAt('after_batch', -1)]))
    learn.load(saved)
    found['file', 'resumed at'] = learn.step
    learn.fit()
    found['file', 'resumed'] = weights(learn), list(learn.history)
    refused['file'] = refusal(file_learner(digits, mean=0.13 + rank/10))
    found['differing'] = differing(rank)

    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(rank)
        for kind in KINDS: found[kind, 'card'] = trained_on_card(kind)
    return found

HANG = """
import os, sys, time
open(f'{sys.argv[1]}/{os.environ["RANK"]}.pid', 'w').write(str(os.getpid()))
time.sleep(100)
"""

class Fail(Callback):
    def after_batch(self, learn):
        if learn.step == 3 and rank_and_world()[0] == 1: raise KeyError('mine')

def trouble(name):
    "A program of two ranks that does not call `leave`."
    rank = join(20)
    learn = learner('ours', callbacks=[Fail()] if name == 'an error' else [])
    if name == 'other settings': learn.bs = 31 + rank
    parallel(learn).fit(1)

TROUBLES = ('other settings', 'an error')

def in_trouble(folder):
    "Run each of them on two forks of this process: exit codes and the last lines."
    torch.set_num_threads(1)
    learner('ours') # what is imported late is imported once
    os.environ |= {'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1'}
    found = {}
    for name in TROUBLES:
        with socket.socket() as s:
            s.bind(('127.0.0.1', 0))
            os.environ['MASTER_PORT'] = str(s.getsockname()[1])
        pids = []
        for rank in range(2):
            os.environ['RANK'] = str(rank)
            pids.append(os.fork())
            if pids[rank] == 0:
                sys.stderr = open(folder/f'{rank}.err', 'w')
                return trouble(name)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        lines = [(folder/f'{rank}.err').read_text().splitlines() for rank in range(2)]
        found[name] = [codes, *((said or [''])[-1] for said in lines)]
    (folder/'found').write_text(json.dumps(found))

if __name__ == '__main__' and sys.argv[1] == 'trouble':
    in_trouble(Path(sys.argv[2]))
elif __name__ == '__main__':
    folder = sys.argv[1]
    rank = join(60)
    torch.save(program(rank, folder), f'{folder}/{rank}.pt')
    leave()
    assert rank_and_world() == (0, 1)

# ---- running it ----

def torchrun(script, folder, until, seconds=200):
    "Run a script as two processes until it ends, or `until()`: output and exit code."
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone',
               '--nproc-per-node=2', str(script), str(folder)]
    env = os.environ | {'OMP_NUM_THREADS': '1'}
    log = folder/'log'
    with open(log, 'w') as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=env)
    try:
        deadline = monotonic() + seconds
        while process.poll() is None and monotonic() < deadline and not until():
            sleep(0.05)
    finally:
        process.terminate() # torchrun ends its processes before itself
        code = process.wait(60)
    return log.read_text(), code

def write_digits(path):
    "An IDX file of 1,200 random images."
    images = np.random.default_rng(0).integers(0, 256, (1200, 28, 28), np.uint8)
    shape = np.array(images.shape, '>u4')
    path.write_bytes(b'\0\0\x08\3' + shape.tobytes() + images.tobytes())

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    write_digits(folder/'digits')
    return folder

@pytest.fixture(scope='module')
def ranks(folder):
    "What the program returned on rank 0 and on rank 1."
    said, code = torchrun(__file__, folder, until=lambda: False)
    assert code == 0, said
    return [torch.load(folder/f'{rank}.pt', weights_only=False) for rank in range(2)]

def assert_close(found, expected, tol=1e-12):
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() <= tol*b.norm()

def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True): assert torch.equal(a, b)

# ---- alone ----

def test_a_process_that_is_alone():
    assert rank_and_world() == (0, 1)
    assert join() == 0
    leave()
    assert join() == 0

def test_parallel_leaves_a_single_process_as_it_is():
    learn = learner('ours')
    callbacks = learn.callbacks
    assert parallel(learn) is learn
    assert learn.callbacks is callbacks

@pytest.mark.parametrize('said, cause', [
    ('The server socket has failed. EADDRINUSE, in use\nmore', 'its port is in use'),
    ('1/2 clients joined\nmore', '1/2 clients joined'),
    ('', 'another program is at its port')])
def test_join_says_why_there_was_no_meeting(monkeypatch, said, cause):
    def rendezvous(url, timeout):
        assert url == 'env://' and timeout.total_seconds() == 2.5
        raise dist.DistStoreError(said)
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setattr(dist, 'rendezvous', rendezvous)
    with pytest.raises(TimeoutError) as caught: join(2.5)
    assert str(caught.value).startswith(f'join: no meeting in 2.5 s ({cause}')
    assert 'more' not in str(caught.value)

# ---- two processes ----

def test_each_process_knows_its_place(ranks):
    assert [found['place'] for found in ranks] == [(0, 2), (1, 2)]

def test_average_is_weighted_and_gives_new_tensors(ranks):
    for found in ranks:
        matrix, number = found['average']
        torch.testing.assert_close(matrix, torch.full((2, 3), 5/3)) # 1/3*1 + 2/3*2
        torch.testing.assert_close(number, torch.tensor(20/3))
        assert found['average kept']

@pytest.mark.parametrize('kind', KINDS)
def test_two_processes_train_the_weights_of_one(ranks, kind):
    single, history = trained(kind)
    for found in ranks:
        assert_close(found[kind][0], single)
        for row, expected in zip(found[kind][1], history, strict=True):
            for name, value in expected.items():
                assert row[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name

def test_a_rank_without_a_row_counts_nothing(ranks):
    single, _ = trained('ours', bs=83)
    for found in ranks: assert_close(found['empty share'][0], single)

@pytest.mark.parametrize('name', [*KINDS, *((kind, 'dropout') for kind in KINDS)])
def test_ranks_are_the_same_to_the_last_bit(ranks, name):
    assert_equal(ranks[0][name][0], ranks[1][name][0])
    assert ranks[0][name][1] == ranks[1][name][1]

def test_dropout_differs_from_rank_to_rank(ranks):
    assert not torch.equal(ranks[0]['draws'], ranks[1]['draws'])
    single, _ = trained('ours', 0.5)
    assert not torch.equal(ranks[0]['ours', 'dropout'][0][0], single[0])

def test_a_fit_keeps_the_global_generator(ranks):
    assert all(found['global generator kept'] for found in ranks)

def test_each_rank_predicts_its_share_during_a_fit(ranks):
    assert ranks[0]['scored'] == [51, 51] # of 101 rows to learn from, 101 to judge by
    assert ranks[1]['scored'] == [50, 50]

def test_predict_after_a_fit_is_not_shared(ranks):
    assert ranks[0]['outside']

def test_no_method_of_the_learner_is_replaced(ranks):
    for found in ranks:
        assert not found['attributes'] & set(dir(Learner))

def test_rank_0_alone_prints_and_saves(ranks):
    assert ranks[0]['printed'].count('epoch ') == 2
    assert ranks[1]['printed'] == ''
    assert [found['wrote'] for found in ranks] == [True, False]

@pytest.mark.parametrize('asked, step', [
    (('after_batch', 15), 16), # all know it one step later
    (('after_batch', 11), 11), (('after_epoch', 22), 22), # or at the end of the epoch
    (('before_fit', 0), 0), (('after_batch', 55), 55), (('before_step', 15), 17)])
def test_all_ranks_stop_after_the_same_step_and_resume(ranks, asked, step):
    for found in ranks:
        assert found['stop'][asked] == step
        assert_equal(found['stop'][*asked, 'resumed'], found['torch', 'dropout'][0])

@pytest.mark.parametrize('name, words', [
    ('weights', 'ValueError: parallel: rank 1 has other weights, layers than rank 0'),
    ('data', 'ValueError: parallel: rank 1 has other data than rank 0'),
    ('settings', 'ValueError: parallel: rank 1 has other settings than rank 0'),
    ('file', 'ValueError: parallel: rank 1 has other data, layers than rank 0'),
    ('generator', 'ValueError: parallel: the learner needs a generator of its own'),
    (('BatchNorm', 'ours'), 'ValueError: parallel: BatchNorm would see a share'),
    (('BatchNorm', 'torch'), 'ValueError: parallel: BatchNorm would see a share'),
    ('nan', 'FloatingPointError: the loss is nan in epoch 1')])
def test_what_two_processes_refuse(ranks, name, words):
    for found in ranks: assert found['refused'][name].startswith(words)

@pytest.mark.parametrize('change, part', CHANGES.items())
def test_ranks_that_differ_are_refused(ranks, change, part):
    for found in ranks:
        message = found['differing'][change.__name__]
        assert message.startswith('ValueError: parallel: rank 1 has other ')
        assert part in message

@pytest.mark.parametrize('name', DIFFER)
def test_settings_of_a_callback_are_compared(ranks, name):
    expected = 'ValueError: parallel: rank 1 has other callbacks than rank 0'
    assert [found['differing'][name] for found in ranks] == [expected, expected]

@pytest.mark.parametrize('name', ALIKE)
def test_what_may_differ_from_rank_to_rank(ranks, name):
    assert [found['differing'][name] for found in ranks] == [None, None]

def test_the_number_of_epochs_is_compared(ranks):
    for found in ranks: assert 'other settings than' in found['differing']['epochs']

def test_a_second_fit_compares_the_loss_but_not_what_a_run_left_in_callbacks(ranks):
    expected = 'parallel: rank 1 has other loss than rank 0'
    assert [found['differing']['second fit'] for found in ranks] == [expected, expected]

def test_a_learner_without_callbacks_is_fine(ranks):
    assert [found['refused']['nothing'] for found in ranks] == [None, None]

@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs two graphics cards')
@pytest.mark.parametrize('kind', KINDS)
def test_two_cards_train_the_weights_of_one_processor(ranks, kind):
    single, _ = trained(kind)
    for found in ranks: assert_close(found[kind, 'card'], single, 1e-10)

# ---- from a file ----

def test_each_rank_learns_from_its_own_part_of_the_file(ranks):
    first, second = (found['file'][2] for found in ranks)
    assert [len(first), len(second)] == [501, 500]
    assert max(first) < min(second)

def test_from_a_file_two_processes_train_the_weights_of_one(ranks, folder):
    single, history, _ = trained_from_file(folder/'digits')
    for found in ranks:
        assert_close(found['file'][0], single, 1e-5)
        loss = found['file'][1][-1]['valid_loss']
        assert loss == pytest.approx(history[-1]['valid_loss'], abs=1e-5)

def test_from_a_file_a_stopped_run_resumes_bit_for_bit(ranks):
    for found in ranks:
        assert found['file', 'resumed at'] == 21
        assert_equal(found['file', 'resumed'][0], ranks[0]['file'][0])
        assert found['file', 'resumed'][1] == ranks[0]['file'][1]

def test_one_process_refuses_the_run_of_two(ranks, folder):
    learn = file_learner(folder/'digits', callbacks=[StopAt('after_batch', -1)])
    expected = r"the run had {'callbacks': \['Parallel', 'Schedule', 'Blocks', "
    with pytest.raises(ValueError, match=expected):
        learn.load(folder/'file.safetensors')

# ---- trouble ----

def test_no_process_is_left_when_one_hangs(tmp_path):
    script = tmp_path/'hang.py'
    script.write_text(HANG)
    def pids():
        texts = [path.read_text() for path in tmp_path.glob('*.pid')]
        return [text for text in texts if text] # the file is complete
    said, code = torchrun(script, tmp_path, until=lambda: len(pids()) == 2)
    assert code != 0
    assert len(pids()) == 2, said
    for pid in pids():
        with pytest.raises(ProcessLookupError): os.kill(int(pid), 0)

@pytest.fixture(scope='module')
def ends(tmp_path_factory):
    "How two ranks end in each kind of trouble: exit codes, last line of each."
    folder = tmp_path_factory.mktemp('trouble')
    subprocess.run([sys.executable, __file__, 'trouble', folder], check=True,
                   timeout=100, env=os.environ | {'OMP_NUM_THREADS': '1'})
    return json.loads((folder/'found').read_text())

@pytest.mark.parametrize('name', TROUBLES)
def test_all_ranks_end_with_an_error_and_not_by_a_signal(ends, name):
    codes, *_ = ends[name]
    assert codes == [1, 1]

def test_each_rank_says_why_it_ended(ends):
    refused = 'ValueError: parallel: rank 1 has other settings than rank 0'
    gone = 'ConnectionError: another process has ended or does not answer ('
    assert [line.endswith(refused) for line in ends['other settings'][1:]] == [True]*2
    assert gone in ends['an error'][1] and "KeyError: 'mine'" in ends['an error'][2]
