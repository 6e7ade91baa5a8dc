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
from torch import nn

from fcnet.baselines import (PEERS, JaxProducts, Micrograd, NumPyLesson, NumPyLoop,
                             OurLearner, OurLoop, RowsAlone, Sklearn, Tinygrad,
                             TorchLoop, make_job)
from fcnet.data import get_data
from fcnet.init import kaiming_normal

OURS = 'ours, plain loop'
LIMITS = ['limit: products, torch', 'limit: products, NumPy']
# peers that give the loss of their last batch
SAME = ['ours, Learner', 'nn.Module, bare loop', 'nn.Module, DataLoader', 'NumPy',
        'JAX, scan']
NEEDS = {'JAX, scan': 'jax', 'limit: products, JAX': 'jax', 'scikit-learn': 'sklearn',
         'tinygrad': 'tinygrad', 'micrograd': 'micrograd'}

def peer_of(name, job):
    "The peer of this name; the test is skipped where its library is missing."
    if name in NEEDS: pytest.importorskip(NEEDS[name])
    return PEERS[name](job)

@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv('TQDM_DISABLE', '1')

@pytest.fixture
def precision():
    "Put PyTorch's switch for products back."
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
        assert (job.bs, job.lr) == (64, 0.05)

    def test_the_value_of_a_digit(self):
        job = make_job(5, 1, rows=7)
        assert (job.y.shape, job.y.dtype) == ((7, 1), np.float32)
        assert job.y[:,0].tolist() == make_job(5, rows=7).y.tolist()
        assert job.weights[2].shape == (5, 1)

    def test_digits_are_normalized_by_those_of_the_job(self):
        x, y, x_valid, y_valid = get_data()
        job = make_job(5, rows=7)
        assert abs(job.x.mean()) < 1e-5 and abs(job.x.std() - 1) < 1e-3
        mean = x[:7].mean()
        std = x[:7].std()
        np.testing.assert_allclose(job.x, (x[:7] - mean)/std, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(job.x_valid, (x_valid - mean)/std, rtol=1e-5,
                                   atol=1e-6)
        assert job.y.tolist() == y[:7].tolist()
        assert job.y_valid.tolist() == y_valid.tolist()

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
        (dict(n_hidden=5, n_out=3), 'make_job: n_out is 3, expected one of 1, 10'),
        (dict(n_hidden=5, lr=-1.), 'make_job: lr is -1.0, expected at least 0')])
    def test_rejects(self, options, match):
        with pytest.raises(ValueError, match=match):
            make_job(**options)

@cache # each peer is set up, and compiled, once
def trained(name, rows=150):
    "Three epochs of a peer: its losses, and its scores of some validation digits."
    job = make_job(20, rows=rows)
    peer = peer_of(name, job)
    losses = [peer.epoch(i) for i in range(3)]
    return losses, peer.scores(job.x_valid[:30])

class TestSameNumbers:
    @pytest.mark.parametrize('name', SAME)
    def test_losses_are_ours(self, name):
        losses, _ = trained(name)
        expected, _ = trained(OURS)
        assert all(type(loss) is float for loss in losses)
        np.testing.assert_allclose(losses, expected, rtol=1e-5)

    @pytest.mark.parametrize('name', ['ours, Learner', 'NumPy', 'JAX, scan'])
    def test_losses_are_ours_if_batches_are_equal(self, name):
        losses, _ = trained(name, rows=128)
        expected, _ = trained(OURS, rows=128)
        np.testing.assert_allclose(losses, expected, rtol=1e-5)

    @pytest.mark.parametrize('name', SAME)
    def test_scores_are_ours(self, name):
        _, scores = trained(name)
        _, expected = trained(OURS)
        assert type(scores) is np.ndarray and scores.shape == (30, 10)
        np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize('name', ['ours, Learner', 'nn.Module, bare loop', 'NumPy'])
    def test_a_wrong_learning_rate_is_seen(self, name, job):
        other = PEERS[name](job._replace(lr=0.0505))
        losses = [other.epoch(i) for i in range(3)]
        expected, _ = trained(OURS)
        assert abs(np.array(losses)/expected - 1).max() > 1e-4

    def test_our_losses_by_autograd(self, job):
        x, y, weights = job.tensors()
        params = [w.requires_grad_() for w in weights]
        w1, b1, w2, b2 = params
        for rows in job.batches(0):
            loss = F.cross_entropy((x[rows]@w1 + b1).relu()@w2 + b2, y[rows])
            grads = torch.autograd.grad(loss, params)
            with torch.no_grad():
                for p, grad in zip(params, grads): p -= job.lr*grad
        ours = OurLoop(job)
        assert abs(ours.epoch(0)/loss.item() - 1) < 1e-5
        for p, q in zip(ours.model.parameters(), params, strict=True):
            torch.testing.assert_close(p, q.detach(), rtol=1e-4, atol=1e-6)

    def test_in_float64_ours_is_numpys(self, job):
        exact = job._replace(x=job.x.astype(float),
                             weights=[w.astype(float) for w in job.weights])
        ours = OurLoop(exact)
        theirs = NumPyLoop(exact)
        for i in range(2): assert abs(ours.epoch(i)/theirs.epoch(i) - 1) < 1e-12

    @pytest.mark.parametrize('name', [OURS, *SAME[:-1], 'NumPy, notebook 07',
                                      'limit: products, torch'])
    def test_no_peer_changes_the_job(self, name, job):
        before = [w.copy() for w in job.weights]
        peer_of(name, job).epoch(0)
        for w, old in zip(job.weights, before): np.testing.assert_array_equal(w, old)

class TestFullBatch:
    @pytest.mark.parametrize('n_out', [1, 10])
    def test_loss_and_gradients(self, n_out):
        full = make_job(5, n_out, bs=0, rows=40)
        ours = OurLoop(full)
        theirs = TorchLoop(full)
        losses = [peer.full(0) for peer in (ours, theirs, ours)] # a second time as well
        assert abs(losses[0]/losses[1] - 1) < 1e-5 and losses[2] == losses[0]
        for p, q in zip(ours.model.parameters(), theirs.model.parameters()):
            torch.testing.assert_close(p.grad, q.grad.t(), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize('name', LIMITS)
    def test_products_have_no_loss(self, name):
        assert PEERS[name](make_job(5, 1, bs=0, rows=40)).full(0) is None

class TestOtherLibraries:
    def test_the_lesson_in_numpy_by_pytorch(self, job):
        peer = NumPyLesson(job)
        assert peer.epoch(0) is None
        x, y, (w1, b1, w2, b2) = job.tensors()
        net = nn.Sequential(nn.Linear(784, 20), nn.Sigmoid(), nn.Linear(20, 10))
        with torch.no_grad():
            for p, w in zip(net.parameters(), (w1.t(), b1, w2.t(), b2)): p.copy_(w)
        opt = torch.optim.SGD(net.parameters(), lr=job.lr)
        for rows in job.batches(0):
            opt.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()
            opt.step()
        for p, q in zip(peer.params, net.parameters(), strict=True):
            assert p.dtype == np.float32
            expected = q.detach().numpy().reshape(p.shape)
            np.testing.assert_allclose(p, expected, rtol=1e-3, atol=1e-5)

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
        p = peer.scores(job.x[:5])
        np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)

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

    def test_tinygrad_has_our_weights(self, monkeypatch):
        monkeypatch.setenv('DEV', 'PYTHON') # needs no compiler, but is slow
        pytest.importorskip('tinygrad')
        job = make_job(3, rows=10, bs=4) # the last batch, of two rows, is left out
        w1, *others = job.weights
        tiny = job._replace(x=job.x[:,150:160].copy(),
                            weights=[w1[:10].copy(), *others])
        peer = Tinygrad(tiny)
        ours = OurLoop(tiny)
        x, y, _ = tiny.tensors()
        for i in range(2): # the step is recorded in its second call, then repeated
            assert peer.epoch(i) is None
            for rows in tiny.batches(i)[:2]:
                ours.loss_and_backward(x[rows], y[rows])
                ours.opt.step()
        for p, q in zip(peer.params, ours.model.parameters(), strict=True):
            np.testing.assert_allclose(p.numpy(), q, rtol=1e-4, atol=1e-7)

class TestLimits:
    @pytest.mark.parametrize('name', [name for name in PEERS
                                      if name.startswith('limit')])
    def test_have_no_loss(self, name, job, precision):
        assert peer_of(name, job).epoch(0) is None

    @pytest.mark.parametrize('name', LIMITS)
    def test_products_take_every_batch_once(self, name, job, monkeypatch):
        peer = PEERS[name](job)
        seen = []
        monkeypatch.setattr(peer, 'products', lambda *args: seen.append(args))
        peer.epoch(1)
        rows = np.concatenate([np.asarray(x) for x, _ in seen])
        np.testing.assert_array_equal(rows, job.x[job.order(1)])
        assert [grad.shape for _, grad in seen] == [(64, 10), (64, 10), (22, 10)]

    def test_products_of_jax_count_each_product(self, job):
        pytest.importorskip('jax')
        peer = JaxProducts(job)
        batches = job.order(0)[:128].reshape(2, 64)
        scores, d_w2, d_w1 = peer.run(peer.x, batches)
        w1, _, w2, _ = job.weights
        grad = np.ones((64, 10), np.float32)*np.arange(1, 65, dtype=np.float32)[:,None]
        hidden = [job.x[rows]@w1 for rows in batches]
        expected = [sum(h@w2 for h in hidden), sum(h.T@grad for h in hidden),
                    sum(job.x[rows].T@(grad@w2.T) for rows in batches)]
        for found, right in zip((scores, d_w2, d_w1), expected):
            np.testing.assert_allclose(found, right, rtol=1e-3, atol=1e-2)

    def test_rows_alone_takes_them_all(self, job):
        assert RowsAlone(job).x.shape == (150, 784)

class TestPeers:
    def test_names_of_the_stored_measurements(self):
        path = Path(__file__).parent.parent/'nbs'/'bench.csv'
        _, *lines = path.read_text().splitlines()
        assert {row['peer'] for row in csv.DictReader(lines)} <= PEERS.keys()

    def test_ours_come_first(self):
        assert list(PEERS)[:4] == [OURS, 'ours, Learner', 'ours, plain loop, medium',
                                   'ours, Learner, medium']

    @pytest.mark.parametrize('name, kind', [
        ('ours, plain loop, medium', OurLoop), ('ours, Learner, medium', OurLearner),
        ('nn.Module, bare loop, medium', TorchLoop)])
    def test_medium_turns_the_switch_for_good(self, name, kind, job, precision):
        torch.set_float32_matmul_precision('highest')
        peer = PEERS[name](job)
        assert type(peer) is kind
        assert torch.get_float32_matmul_precision() == 'medium'

    def test_compiled_compiles_the_forward_pass(self, job, monkeypatch):
        compiled = []
        monkeypatch.setattr(torch, 'compile', lambda f: compiled.append(f) or f)
        peer = PEERS['nn.Module, torch.compile'](job)
        assert len(compiled) == 1
        assert abs(peer.epoch(0)/OurLoop(job).epoch(0) - 1) < 1e-5
        TorchLoop(job)
        assert len(compiled) == 1

    @pytest.mark.processes
    def test_importing_them_loads_no_other_library(self):
        code = ('import sys, fcnet.baselines; '
                'print([m for m in ("jax", "sklearn", "tinygrad", "micrograd") '
                'if m in sys.modules])')
        done = subprocess.run([sys.executable, '-c', code], capture_output=True,
                              text=True)
        assert done.stdout == '[]\n', done.stderr
