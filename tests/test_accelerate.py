"Tests of fcnet.accelerate: precisions, and steps that are recorded on a graphics card."
from copy import deepcopy
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fcnet.accelerate
from fcnet.accelerate import BFloat16, BFloat16Linear, CudaGraph, Precision
from fcnet.classify import CrossEntropy
from fcnet.data import Data
from fcnet.deep import Residual
from fcnet.interpret import input_grad
from fcnet.layers import Linear, ReLU, Sequential, check_layer
from fcnet.learner import Callback, Learner
from fcnet.optim import SGD
from fcnet.regularize import Dropout
from fcnet.streaming import FromFile

def distance(a, b): return ((a - b).norm()/b.norm()).item()

@pytest.fixture
def batch():
    return torch.randn(64, 784), torch.randint(10, (64,))

@pytest.fixture
def net():
    "A network of PyTorch's, with biases that are not 0."
    net = nn.Sequential(nn.Linear(784, 20), nn.ReLU(), nn.Linear(20, 10))
    for p in net.parameters(): p.data += 0.1*torch.randn(p.shape)
    return net

def ours(net, kind):
    "The same network of our layers, its linear ones of a kind."
    layers = []
    for part in net:
        if isinstance(part, nn.Linear):
            layer = kind(part.in_features, part.out_features)
            layer.w = part.weight.detach().t().contiguous()
            layer.b = part.bias.detach().clone()
            layers.append(layer)
        else:
            layers.append(ReLU())
    return Sequential(layers)

def gradients(model, x, y):
    "Loss and gradients, by hand."
    loss = CrossEntropy()
    model.zero_grad()
    value = loss(model(x), y)
    model.backward(loss.backward(), need_inp=False)
    return value, [p.grad for p in model.parameters()]

def learner(model, callbacks, x, y, bs=32, lr=0.1):
    loss = F.cross_entropy if isinstance(model, nn.Module) else CrossEntropy()
    data = Data(x, y, x[:20], y[:20])
    return Learner(model, data, SGD(model.parameters(), lr, 0.9), loss, bs=bs,
                   callbacks=callbacks, generator=torch.Generator().manual_seed(0))

class Watch(Callback):
    "What holds during the steps."
    def __init__(self, look):
        self.look = look
        self.seen = []
    def before_step(self, learn): self.seen.append(self.look(learn))

# ---- Precision ----

@pytest.mark.parametrize('precision', ['highest', 'high', 'medium'])
def test_precision_is_set_while_training(net, batch, precision):
    before = torch.get_float32_matmul_precision()
    watch = Watch(lambda learn: torch.get_float32_matmul_precision())
    learner(net, [Precision(precision), watch], *batch).fit(1)
    assert watch.seen == [precision]*2
    assert torch.get_float32_matmul_precision() == before

def test_precision_is_put_back_after_a_failure(net, batch):
    before = torch.get_float32_matmul_precision()
    x, y = batch
    class Spoil(Callback):
        def before_batch(self, learn): learn.x = learn.x*torch.nan
    learn = learner(net, [Precision(), Spoil()], x, y)
    with pytest.raises(FloatingPointError): learn.fit(1)
    assert torch.get_float32_matmul_precision() == before

def test_precision_leaves_alone_what_it_did_not_set():
    before = torch.get_float32_matmul_precision()
    Precision('medium').after_fit(None) # a callback before it failed in before_fit
    assert torch.get_float32_matmul_precision() == before

def test_precision_refuses_other_words():
    expected = "Precision: precision is 'bf16', expected one of highest, high, medium"
    with pytest.raises(ValueError, match=expected): Precision('bf16')

# ---- BFloat16Linear ----

def test_without_a_bias():
    layer = BFloat16Linear(7, 5, bias=False)
    x = torch.randn(3, 7)
    out = layer(x)
    layer.backward(torch.ones(3, 5))
    exact = Linear(7, 5, bias=False)
    exact.w = layer.w
    torch.testing.assert_close(out, exact(x), rtol=0.02, atol=0.02)
    assert str(layer) == 'BFloat16Linear(7, 5, bias=False)' and layer.w.grad is not None

def test_products_are_those_of_rounded_numbers():
    layer = BFloat16Linear(7, 5)
    layer.b = torch.randn(5)
    x = torch.randn(3, 7)
    grad = torch.randn(3, 5)
    x16, w16, b16, grad16 = (t.bfloat16() for t in (x, layer.w, layer.b, grad))
    out = layer(x)
    d_inp = layer.backward(grad)
    for found, expected in ((out, x16@w16 + b16),
                            (d_inp, grad16@w16.t()),
                            (layer.w.grad, x16.t()@grad16),
                            (layer.b.grad, grad16.sum(0))):
        assert found.dtype == torch.float32
        assert torch.equal(found, expected.float())

def test_weights_gradients_and_scores_are_float32(net, batch):
    model = ours(net, BFloat16Linear)
    loss, grads = gradients(model, *batch)
    scores = model(batch[0])
    kept = [loss, scores, *model.parameters(), *grads]
    assert {t.dtype for t in kept} == {torch.float32}

def test_gradients_are_those_of_pytorch_under_autocast(net, batch):
    x, y = batch
    with torch.autocast('cpu', torch.bfloat16): scores = net(x)
    F.cross_entropy(scores.float(), y).backward()
    _, rounded = gradients(ours(net, BFloat16Linear), x, y)
    _, exact = gradients(ours(net, Linear), x, y)
    theirs = [p.grad.t() for p in net.parameters()] # of a bias: itself
    for mine, their, right in zip(rounded, theirs, exact, strict=True):
        assert their.dtype == torch.float32
        assert distance(mine, their) < 1e-2
        assert 1e-4 < distance(mine, right) < 3e-2

def test_evaluation_is_that_of_a_linear_layer(net, batch):
    x, y = batch
    rounding = ours(net, BFloat16Linear)
    plain = ours(net, Linear)
    assert not torch.equal(rounding(x), plain(x))
    rounding.eval()
    plain.eval()
    assert torch.equal(rounding(x), plain(x))
    uphill = [input_grad(model, CrossEntropy(), x, y) for model in (rounding, plain)]
    assert torch.equal(*uphill)
    check_layer(BFloat16Linear(4, 3).eval(), torch.randn(5, 4))

def test_first_weights_are_those_of_a_linear_layer():
    layers = [kind(7, 5, std=0.1, generator=torch.Generator().manual_seed(1))
              for kind in (Linear, BFloat16Linear)]
    assert torch.equal(layers[0].w, layers[1].w)
    assert isinstance(layers[1], Linear)

def test_without_the_inputs_gradient():
    layer = BFloat16Linear(4, 3)
    layer(torch.randn(5, 4))
    assert layer.backward(torch.randn(5, 3), need_inp=False) is None
    assert layer.w.grad.dtype == torch.float32

def test_other_dtypes_come_back_as_they_were():
    layer = BFloat16Linear(4, 3).to(torch.float64)
    out = layer(torch.randn(5, 4).double())
    d_inp = layer.backward(torch.ones_like(out))
    assert out.dtype == d_inp.dtype == layer.w.grad.dtype == torch.float64

def test_it_names_itself_in_errors():
    layer = BFloat16Linear(4, 3)
    assert repr(layer) == 'BFloat16Linear(4, 3)'
    expected = r'BFloat16Linear\(4, 3\): x has shape \(5, 6\), expected \(n, 4\)'
    with pytest.raises(ValueError, match=expected): layer(torch.randn(5, 6))
    with torch.autocast('cpu', torch.bfloat16):
        with pytest.raises(ValueError, match='torch.autocast is on'):
            layer(torch.randn(5, 4))

def test_it_trains_within_other_layers(batch):
    x, y = batch
    inner = Residual([BFloat16Linear(20, 20), ReLU()])
    model = Sequential([BFloat16Linear(784, 20), inner, BFloat16Linear(20, 10)])
    learn = learner(model, [], x, y, lr=0.01)
    learn.fit(10)
    assert learn.history[-1]['train_loss'] < 0.3*learn.history[0]['train_loss']

# ---- BFloat16 ----

def test_autocast_rounds_products_in_steps_alone(net, batch):
    x, y = batch
    types = []
    def note(layer, inputs, out): types.append((layer.training, out.dtype))
    net[0].register_forward_hook(note)
    learn = learner(net, [BFloat16()], x, y)
    learn.fit(1)
    steps = [dtype for training, dtype in types if training]
    others = [dtype for training, dtype in types if not training]
    assert steps == [torch.bfloat16]*2
    assert len(others) == 2 and set(others) == {torch.float32}
    kept = [t for p in net.parameters() for t in (p, p.grad)]
    assert {t.dtype for t in kept} == {torch.float32}
    assert learn.predict(x).dtype == torch.float32
    assert not torch.is_autocast_enabled('cpu')

def test_a_step_is_that_of_autocast(net, batch):
    x, y = batch
    twin = deepcopy(net)
    learn = learner(net, [BFloat16()], x, y)
    step = BFloat16().wrap_step(learn, learn.loss_and_backward)
    loss = step(x, y)
    with torch.autocast('cpu', torch.bfloat16): scores = twin(x)
    expected = F.cross_entropy(scores.float(), y)
    expected.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected.detach())
    exact = deepcopy(twin)
    exact.zero_grad()
    F.cross_entropy(exact(x), y).backward()
    for p, q, right in zip(net.parameters(), twin.parameters(), exact.parameters()):
        torch.testing.assert_close(p.grad, q.grad)
        assert 1e-4 < distance(p.grad, right.grad) < 3e-2

def test_autocast_is_not_for_our_own_layers(net, batch):
    model = ours(net, Linear)
    with pytest.raises(ValueError, match='BFloat16: expected an nn.Module'):
        learner(model, [BFloat16()], *batch).fit(1)

# ---- CudaGraph; there is no card in these tests ----

def on_card(model): return SimpleNamespace(device=torch.device('cuda'), model=model)

def test_it_needs_a_card(net, batch):
    expected = 'CudaGraph: device is .cpu., expected one of cuda'
    with pytest.raises(ValueError, match=expected):
        learner(net, [CudaGraph()], *batch).fit(1)

def test_it_needs_one_process(net, monkeypatch):
    monkeypatch.setattr(fcnet.accelerate, 'rank_and_world', lambda: (0, 2))
    expected = 'CudaGraph: processes is 2, expected one of 1'
    with pytest.raises(ValueError, match=expected): CudaGraph().before_fit(on_card(net))

@pytest.mark.parametrize('layer', [Dropout(0.5, torch.Generator()),
                                   FromFile(torch.zeros(3, 784).numpy(), 0., 1.)])
def test_it_refuses_what_cannot_be_recorded(layer):
    model = Sequential([layer, Linear(784, 10)])
    expected = f'CudaGraph: {type(layer).__name__} has a file or a generator'
    with pytest.raises(ValueError, match=expected):
        CudaGraph().before_fit(on_card(model))

def test_it_takes_layers_that_draw_from_the_global_generator(net):
    CudaGraph().before_fit(on_card(Sequential([Dropout(0.5), Linear(784, 10)])))
    CudaGraph().before_fit(on_card(net.append(nn.Dropout(0.5))))

class StandIn(CudaGraph):
    "All that `CudaGraph` does but the recording, on a processor."
    def before_fit(self, learn): super().before_fit(on_card(learn.model))

@pytest.fixture
def replays():
    "A recorded step that is computed again, into the memory that a card would fill."
    replays = []
    class Graph:
        def replay(self):
            replays.append(self)
            graph = current['graph']
            graph.loss.copy_(graph.step(graph.x, graph.y))
            for p, grad in zip(graph.params, graph.grads):
                grad.copy_(p.grad)
                p.grad = None
    current = {}
    with mock.patch.multiple(torch.cuda, CUDAGraph=Graph, graph=mock.MagicMock(),
                             stream=mock.MagicMock(), Stream=mock.MagicMock(),
                             current_stream=mock.MagicMock()):
        yield replays, current

@pytest.mark.parametrize('kind', ['ours', 'torch'])
@pytest.mark.parametrize('fits, n', [(1, 333), (2, 333), (1, 69)])
def test_a_recorded_training_is_the_usual_one(net, replays, kind, fits, n):
    replays, current = replays
    x = torch.randn(n, 784)
    y = torch.randint(10, (n,))
    model = net if kind == 'torch' else ours(net, Linear)
    usual = learner(deepcopy(model), [], x, y)
    current['graph'] = graph = StandIn()
    steps = []
    watch = Watch(lambda learn: steps.append(learn.step) or len(replays))
    recorded = learner(model, [graph, watch], x, y)
    for _ in range(fits):
        for learn in (usual, recorded): learn.fit(3)
    for a, b in zip(usual.model.parameters(), recorded.model.parameters(), strict=True):
        assert distance(b, a) < 1e-5
    assert recorded.history[-1]['train_loss'] == pytest.approx(
        usual.history[-1]['train_loss'], rel=1e-4)
    # the last batch of an epoch is short; the first three full ones warm up
    n_batches = usual.n_batches
    full = [step for step in range(3*n_batches) if (step+1) % n_batches != 0]
    counts = [0, *watch.seen]
    replayed = [step for step, (a, b) in zip(steps, zip(counts, counts[1:])) if b > a]
    assert replayed == full[3:]*fits

def test_the_first_steps_run_on_the_stream_of_the_recording(net, replays, batch):
    replays, current = replays
    current['graph'] = graph = StandIn()
    learn = learner(net, [graph], *batch, bs=16)
    learn.fit(1) # four batches
    usual = torch.cuda.current_stream()
    assert torch.cuda.stream.call_args_list == [mock.call(graph.stream)]*3
    assert graph.stream.wait_stream.call_args_list == [mock.call(usual)]*3
    assert usual.wait_stream.call_args_list == [mock.call(graph.stream)]*3
    recording = mock.call(graph.graph, stream=graph.stream)
    assert torch.cuda.graph.call_args_list == [recording]
    learn.fit(1)
    assert torch.cuda.graph.call_count == 2 # each fit has a recording of its own
    assert len(replays) == 2

def test_a_batch_of_another_shape_is_computed_as_usual(net, replays, batch):
    replays, current = replays
    x, y = batch
    current['graph'] = graph = StandIn()
    learn = learner(net, [], x, y, bs=16)
    step = graph.wrap_step(learn, learn.loss_and_backward)
    for _ in range(4): step(x[:16], y[:16])
    assert len(replays) == 1
    large = step(x, y)
    grads = [p.grad.clone() for p in net.parameters()]
    small = step(x[:5], y[:5])
    assert len(replays) == 1
    torch.testing.assert_close(small, learn.loss_and_backward(x[:5], y[:5]))
    torch.testing.assert_close(large, learn.loss_and_backward(x, y))
    for p, grad in zip(net.parameters(), grads):
        torch.testing.assert_close(p.grad, grad)

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a graphics card')
@pytest.mark.parametrize('kind', ['ours', 'torch'])
def test_a_card_trains_the_weights_of_the_processor(net, kind):
    x = torch.randn(333, 784).double()
    y = torch.randint(10, (333,))
    model = net.double() if kind == 'torch' else ours(net, Linear).to(torch.float64)
    learners = [learner(deepcopy(model), [], x, y)]
    for callbacks in ([], [CudaGraph()]):
        learners.append(learner(deepcopy(model).to('cuda'), callbacks, x, y))
    for learn in learners: learn.fit(5)
    for learn in learners[1:]:
        for a, b in zip(learners[0].model.parameters(), learn.model.parameters()):
            assert distance(b.detach().cpu(), a) < 1e-10
