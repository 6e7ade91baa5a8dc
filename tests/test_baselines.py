"Jobs, and the same network in several libraries, with the same losses."
import csv
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fcnet.baselines import (PEERS, JaxProducts, Micrograd, NumPyLoop, NumPyProducts,
                             OurLayers, OurLearner, Sklearn, Tinygrad, TorchCompiled,
                             TorchLoop, TorchProducts, make_job)
from fcnet.data import get_data
from fcnet.fuse import Fuse
from fcnet.init import kaiming_normal

OURS = 'ours, Learner'
# peers that give the loss of their last batch
SAME = ['ours, layers', 'nn.Module, bare loop', 'nn.Module, bare loop, medium',
        'nn.Module, torch.compile', 'nn.Module, BatchSampler', 'nn.Module, DataLoader',
        'NumPy', 'JAX, scan']
NEEDS = {'JAX, scan': 'jax', 'limit: products, JAX': 'jax', 'scikit-learn': 'sklearn',
         'tinygrad': 'tinygrad', 'micrograd': 'micrograd'}

def peer_of(name, job):
    "The peer of this name; the test is skipped where its library is missing."
    if name in NEEDS: pytest.importorskip(NEEDS[name])
    return PEERS[name](job)

@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    "No bars, no minutes of compiling, and PyTorch's switch for products as it was."
    monkeypatch.setenv('TQDM_DISABLE', '1')
    monkeypatch.setenv('CXX', sys.executable) # something that is there
    monkeypatch.setattr(torch, 'compile', lambda f: f)
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)

@pytest.fixture(scope='module')
def job():
    "150 digits: the last of three batches is smaller."
    return make_job(20, rows=150)

class TestJob:
    def test_order_follows_from_the_epoch(self):
        expected = torch.randperm(30, generator=torch.Generator().manual_seed(1))
        job = make_job(5, rows=30)
        assert job.order(1).tolist() == expected.tolist()
        assert job.order(1).tolist() != job.order(2).tolist()

    def test_batches_are_the_order_in_pieces(self):
        job = make_job(5, rows=30, bs=8)
        batches = job.batches(3)
        assert [len(rows) for rows in batches] == [8, 8, 8, 6]
        assert np.concatenate(batches).tolist() == job.order(3).tolist()

    def test_classes(self):
        job = make_job(5, rows=7)
        assert (job.x.shape, job.x.dtype) == ((7, 784), np.float32)
        assert (job.y.shape, job.y.dtype) == ((7,), np.int64)
        assert [w.shape for w in job.weights] == [(784, 5), (5,), (5, 10), (10,)]
        assert all(w.dtype == np.float32 for w in job.weights)
        assert (job.bs, job.lr) == (7, 0.05) # a batch has at most all rows
        assert make_job(5, rows=65).bs == 64

    def test_the_value_of_a_digit(self):
        job = make_job(5, 1, rows=7)
        assert (job.y.shape, job.y.dtype) == ((7, 1), np.float32)
        assert job.y[:,0].tolist() == make_job(5, rows=7).y.tolist()
        assert job.weights[2].shape == (5, 1)

    def test_digits_are_normalized_by_those_of_the_job(self):
        x, y, _, _ = get_data()
        job = make_job(5, rows=7)
        assert abs(job.x.mean()) < 1e-5 and abs(job.x.std() - 1) < 1e-3
        mean = x[:7].mean()
        std = x[:7].std()
        np.testing.assert_allclose(job.x, (x[:7] - mean)/std, rtol=1e-5, atol=1e-6)
        assert job.y.tolist() == y[:7].tolist()

    def test_takes_all_training_digits_by_default(self):
        assert len(make_job(2).x) == 50_000

    def test_weights_by_kaimings_rule(self):
        g = torch.Generator().manual_seed(0)
        w1, b1, w2, b2 = make_job(5, rows=7).weights
        np.testing.assert_array_equal(w1, kaiming_normal(784, 5, g))
        np.testing.assert_allclose(w2, 0.1*kaiming_normal(5, 10, g), rtol=1e-6)
        assert (b1 == 0).all() and (b2 == 0).all()

    def test_tensors_hold_copies_of_the_weights(self):
        job = make_job(5, rows=7)
        x, y, weights = job.tensors()
        assert x.tolist() == job.x.tolist() and y.tolist() == job.y.tolist()
        for t, w in zip(weights, job.weights, strict=True):
            assert t.tolist() == w.tolist()
            t += 1
            assert t.tolist() != w.tolist()

    @pytest.mark.parametrize('options, match', [
        (dict(n_hidden=0), 'make_job: n_hidden is 0, expected an integer, at least 1'),
        (dict(n_hidden=5, rows=0), 'make_job: rows is 0, expected an integer'),
        (dict(n_hidden=5, bs=0), 'make_job: bs is 0, expected an integer, at least 1'),
        (dict(n_hidden=5, n_out=3), 'make_job: n_out is 3, expected one of 1, 10'),
        (dict(n_hidden=5, lr=-1.), 'make_job: lr is -1.0, expected at least 0')])
    def test_rejects(self, options, match):
        with pytest.raises(ValueError, match=match):
            make_job(**options)

@cache # each peer is set up, and compiled, once
def trained(name, rows=150, bs=64):
    "The losses of three epochs of a peer."
    peer = peer_of(name, make_job(20, rows=rows, bs=bs))
    return [peer.epoch(i) for i in range(3)]

class TestSameNumbers:
    @pytest.mark.parametrize('rows, bs', [(150, 64), (128, 64), (150, 150), (150, 1000)])
    @pytest.mark.parametrize('name', SAME)
    def test_losses_are_ours(self, name, rows, bs):
        losses = trained(name, rows, bs)
        assert all(type(loss) is float for loss in losses)
        most = 1e-2 if 'medium' in name else 1e-5 # its products may be bfloat16
        np.testing.assert_allclose(losses, trained(OURS, rows, bs), rtol=most)

    @pytest.mark.parametrize('name', ['ours, layers', 'nn.Module, bare loop'])
    def test_losses_of_one_output_are_ours(self, name):
        job = make_job(20, 1, rows=150, lr=0.001)
        losses = [[peer.epoch(i) for i in range(2)]
                  for peer in (PEERS[name](job), PEERS[OURS](job))]
        np.testing.assert_allclose(*losses, rtol=1e-5)

    @pytest.mark.parametrize('name', [OURS, *SAME[:-1]])
    def test_a_wrong_learning_rate_is_seen(self, name, job):
        other = PEERS[name](job._replace(lr=0.0505))
        losses = [other.epoch(i) for i in range(3)]
        assert abs(np.array(losses)/trained('ours, layers') - 1).max() > 1e-4

    def test_our_losses_by_autograd(self, job):
        x, y, weights = job.tensors()
        params = [w.requires_grad_() for w in weights]
        w1, b1, w2, b2 = params
        for rows in job.batches(0):
            loss = F.cross_entropy((x[rows]@w1 + b1).relu()@w2 + b2, y[rows])
            grads = torch.autograd.grad(loss, params)
            with torch.no_grad():
                for p, grad in zip(params, grads): p -= job.lr*grad
        ours = OurLearner(job)
        assert abs(ours.epoch(0)/loss.item() - 1) < 1e-5
        for p, q in zip(ours.model.parameters(), params, strict=True):
            torch.testing.assert_close(p, q.detach(), rtol=1e-4, atol=1e-6)

    def test_in_float64_ours_is_numpys(self, job):
        exact = job._replace(x=job.x.astype(float),
                             weights=[w.astype(float) for w in job.weights])
        ours = OurLayers(exact)
        theirs = NumPyLoop(exact)
        for i in range(2): assert abs(ours.epoch(i)/theirs.epoch(i) - 1) < 1e-12

    @pytest.mark.parametrize('name', [OURS, *SAME, 'limit: products, torch'])
    def test_no_peer_changes_the_job(self, name, job):
        before = [w.copy() for w in job.weights]
        peer_of(name, job).epoch(0)
        for w, old in zip(job.weights, before): np.testing.assert_array_equal(w, old)

class TestOurs:
    def test_is_a_learner_with_fuse_that_finds_a_plan(self, job, recwarn):
        learn = OurLearner(job).learn
        fuse, = learn.callbacks
        assert type(fuse) is Fuse and fuse.fault(learn) is None

    def test_numpy_makes_its_memory_once(self, job):
        peer = NumPyLoop(job)
        before = [a.__array_interface__['data'] for a in peer.buffers]
        peer.epoch(0)
        assert [a.__array_interface__['data'] for a in peer.buffers] == before

class TestOtherLibraries:
    def test_sklearn_learns_with_the_settings_of_the_job(self, job):
        pytest.importorskip('sklearn')
        peer = Sklearn(job)
        assert peer.net.hidden_layer_sizes == [20]
        assert peer.net.batch_size == 64 and peer.net.learning_rate_init == 0.05
        losses = []
        for i in range(3):
            assert peer.epoch(i) is None
            losses.append(peer.net.loss_)
        assert losses[2] < losses[0]

    def test_micrograd_by_autograd(self):
        pytest.importorskip('micrograd')
        tiny = make_job(2, rows=3)
        peer = Micrograd(tiny)
        assert peer.epoch(1) is None
        x, _, weights = tiny.tensors()
        params = [w.double().requires_grad_() for w in weights]
        w1, b1, w2, b2 = params
        scores = (x[1].double()@w1 + b1).relu()@w2 + b2
        grads = torch.autograd.grad((scores**2).sum(), params)
        for values, grad in zip(peer.weights, grads, strict=True):
            found = torch.tensor([[v.grad for v in row] for row in values])
            torch.testing.assert_close(found.double(), torch.atleast_2d(grad),
                                       rtol=1e-5, atol=1e-9)

    @pytest.mark.processes # it takes seconds to load
    def test_tinygrad_has_our_weights(self, monkeypatch):
        monkeypatch.setenv('DEV', 'PYTHON') # needs no compiler, but is slow
        pytest.importorskip('tinygrad')
        job = make_job(3, rows=10, bs=4) # the last batch, of two rows, is left out
        w1, *others = job.weights
        tiny = job._replace(x=job.x[:,150:160].copy(),
                            weights=[w1[:10].copy(), *others])
        peer = Tinygrad(tiny)
        ours = OurLayers(tiny)
        for i in range(2): # the step is recorded in its second call, then repeated
            assert peer.epoch(i) is None
            for rows in tiny.batches(i)[:2]:
                x = ours.x[rows]
                y = ours.y[rows]
                ours.model.zero_grad()
                ours.loss(ours.model(x), y)
                ours.model.backward(ours.loss.backward(), need_inp=False)
                ours.opt.step()
        for p, q in zip(peer.params, ours.model.parameters(), strict=True):
            np.testing.assert_allclose(p.numpy(), q, rtol=1e-4, atol=1e-7)

class TestLimits:
    @pytest.mark.parametrize('name', [name for name in PEERS
                                      if name.startswith('limit')])
    def test_have_no_loss(self, name, job):
        assert peer_of(name, job).epoch(0) is None

    @pytest.mark.parametrize('kind', [NumPyProducts, TorchProducts])
    def test_products_take_every_batch_once(self, kind, job, monkeypatch):
        seen = []
        monkeypatch.setattr(kind, 'step', lambda self, rows: seen.append(rows))
        kind(job).epoch(1)
        assert [len(rows) for rows in seen] == [64, 64, 22]
        np.testing.assert_array_equal(np.concatenate(seen), job.order(1))

    @pytest.mark.parametrize('kind', [NumPyProducts, TorchProducts])
    def test_products_are_those_of_a_step(self, kind, job):
        peer = kind(job)
        rows = job.batches(0)[-1]
        peer.step(rows)
        x = job.x[rows]
        w1, _, w2, _ = job.weights
        scores = x@w1@w2
        for found, expected in ((peer.d_w2, (x@w1).T@scores),
                                (peer.d_w1, x.T@(scores@w2.T))):
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-2)

    def test_products_of_jax_count_each_product(self, job):
        pytest.importorskip('jax')
        peer = JaxProducts(job)
        batches = job.order(0)[:128].reshape(2, 64)
        w1, _, w2, _ = job.weights
        expected = 0
        for rows in batches:
            x = job.x[rows]
            scores = x@w1@w2
            products = scores, (x@w1).T@scores, x.T@(scores@w2.T)
            expected += sum(p[0,0] for p in products)
        np.testing.assert_allclose(peer.run(peer.x, batches), expected, rtol=1e-3)

class TestPeers:
    def test_names_of_the_stored_measurements(self):
        path = Path(__file__).parent.parent/'nbs'/'bench.csv'
        _, *lines = path.read_text().splitlines()
        assert {row['peer'] for row in csv.DictReader(lines)} <= PEERS.keys()

    def test_ours_come_first(self):
        assert list(PEERS)[:2] == [OURS, 'ours, layers']

    @pytest.mark.parametrize('name, kind', [
        ('nn.Module, bare loop, medium', TorchLoop),
        ('limit: products, torch, medium', TorchProducts)])
    def test_medium_turns_the_switch_for_good(self, name, kind, job):
        torch.set_float32_matmul_precision('highest')
        assert type(PEERS[name](job)) is kind
        assert torch.get_float32_matmul_precision() == 'medium'

    def test_compiled_compiles_the_whole_step(self, job, monkeypatch):
        compiled = []
        monkeypatch.setattr(torch, 'compile', lambda f: compiled.append(f) or f)
        peer = TorchCompiled(job)
        assert [f.__name__ for f in compiled] == ['step'] and peer.step is compiled[0]
        before = [p.detach().clone() for p in peer.model.parameters()]
        peer.epoch(0) # it changes the weights, and leaves no gradient
        for p, old in zip(peer.model.parameters(), before, strict=True):
            assert not torch.equal(p, old) and p.grad is None

    def test_compiled_needs_a_compiler(self, job, monkeypatch):
        monkeypatch.setenv('CXX', 'no-such-compiler')
        with pytest.raises(RuntimeError, match='no compiler here'): TorchCompiled(job)

    @pytest.mark.processes
    def test_importing_them_loads_no_other_library(self):
        code = ('import sys, fcnet.baselines; '
                'print([m for m in ("jax", "sklearn", "tinygrad", "micrograd") '
                'if m in sys.modules])')
        done = subprocess.run([sys.executable, '-c', code], capture_output=True,
                              text=True)
        assert done.stdout == '[]\n', done.stderr
