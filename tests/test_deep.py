"Normalization, GELU and shortcuts: PyTorch, SymPy and numbers as references."
from copy import deepcopy

import pytest
import sympy
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnet.backward import check_grads
from fcnet.classify import CrossEntropy
from fcnet.data import Data
from fcnet.deep import (GELU, BatchNorm, LayerNorm, Normalize, Residual, batch_norm,
                        batch_norm_grad, gelu, gelu_grad, layer_norm, layer_norm_grad)
from fcnet.layers import Linear, ReLU, Sequential, check_layer
from fcnet.learner import Learner
from fcnet.optim import SGD
from fcnet.regularize import Dropout

def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)

def check_same_as(ours, theirs, x, pairs=()):
    "Values and gradients as those of PyTorch's layer; `pairs` of parameters' names."
    for name, other in pairs:
        setattr(ours, name, getattr(theirs, other).detach().clone())
    theirs.zero_grad()
    leaf = x.clone().requires_grad_()
    out = theirs(leaf)
    torch.testing.assert_close(ours(x), out, rtol=1e-12, atol=1e-12)
    grad = torch.randn(out.shape, dtype=x.dtype)
    out.backward(grad)
    close(ours.backward(grad), leaf.grad)
    for name, other in pairs:
        close(getattr(ours, name).grad, getattr(theirs, other).grad)
    check_layer(ours, x)

PAIRS = [('w', 'weight'), ('b', 'bias')]

def doubles(*shape): return torch.randn(shape, dtype=torch.float64)

# ---- batch normalization: the functions

def batch_stats(x): return x.mean(0), x.var(0, correction=0)
def of_batch(x, w, b): return batch_norm(x, w, b, *batch_stats(x))
def of_batch_grad(grad, x, w, b): return batch_norm_grad(grad, x, w, *batch_stats(x))

def test_batch_norm_gives_columns_of_mean_0_and_variance_1():
    x = doubles(7, 5)*3 + 2
    out = of_batch(x, torch.ones(5), torch.zeros(5))
    torch.testing.assert_close(out.mean(0), torch.zeros(5).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(out.var(0, correction=0), torch.ones(5).double(),
                               rtol=1e-4, atol=0)

def test_batch_norm_grad_is_that_of_sympy():
    xs = sympy.symbols('x1:4')
    gs = (0.5, -1.5, 2.)
    w = 1.7
    mu = sum(xs)/3
    s = sympy.sqrt(sum((x-mu)**2 for x in xs)/3 + sympy.Float('1e-5'))
    loss = sum(g*w*(x-mu)/s for g, x in zip(gs, xs))
    at = dict(zip(xs, (0.3, -0.8, 1.1)))
    def column(values):
        return torch.tensor([float(v) for v in values], dtype=torch.float64)[:,None]
    by_sympy = column(sympy.diff(loss, x).subs(at) for x in xs)
    scale = torch.tensor([w], dtype=torch.float64)
    ours = of_batch_grad(column(gs), column(at.values()), scale, None)[0]
    close(ours, by_sympy)

def test_batch_norm_grad_of_given_statistics_has_the_direct_term_alone():
    mean = doubles(5)
    var = doubles(5).abs() + 0.5
    def f(x, w, b): return batch_norm(x, w, b, mean, var)
    def f_grad(grad, x, w, b): return batch_norm_grad(grad, x, w, mean, var, dim=None)
    check_grads(f, f_grad, torch.randn(7, 5), torch.randn(5), torch.randn(5))

def faulty_batch_norm_grad(drop):
    "Written out by its terms, without one of them."
    def f(grad, x, w, b):
        s = (x.var(0, correction=0)+1e-5).sqrt()
        x_hat = (x-x.mean(0))/s
        h = grad*w
        terms = {'mean': h.mean(0), 'var': x_hat*(h*x_hat).mean(0)}
        kept = sum(t for name, t in terms.items() if name != drop)
        return (h - kept)/s, (grad*x_hat).sum(0), grad.sum(0)
    return f

def test_check_grads_finds_a_missing_term_of_batch_norm():
    inputs = torch.randn(7, 5), torch.randn(5), torch.randn(5)
    check_grads(of_batch, of_batch_grad, *inputs)
    check_grads(of_batch, faulty_batch_norm_grad(None), *inputs)
    for term in ('mean', 'var'):
        with pytest.raises(AssertionError, match='x: off'):
            check_grads(of_batch, faulty_batch_norm_grad(term), *inputs)

def test_normalizing_columns_written_another_way():
    def f(x):
        centered = x - x.mean(0)
        return centered/(centered.pow(2).mean(0) + 1e-5).sqrt()
    def f_grad(grad, x): return of_batch_grad(grad, x, torch.ones(5).double(), None)[0]
    check_grads(f, f_grad, torch.randn(7, 5))

# ---- BatchNorm

@pytest.mark.parametrize('settings', [{}, dict(eps=0.5, momentum=0.3)])
def test_batch_norm_layer_is_that_of_pytorch(settings):
    theirs = nn.BatchNorm1d(5, **settings).double()
    for p in theirs.parameters(): nn.init.normal_(p)
    x = doubles(7, 5)*3 + 2
    ours = BatchNorm(5, **settings).to(torch.float64)
    check_same_as(ours, theirs, x, PAIRS)
    close(ours.mean, theirs.running_mean)
    close(ours.var, theirs.running_var)

def test_running_statistics_and_evaluation_are_those_of_pytorch():
    ours = BatchNorm(5).to(torch.float64)
    theirs = nn.BatchNorm1d(5).double()
    for _ in range(5):
        x = doubles(7, 5)*3 + 2
        ours.forward(x)
        theirs(x)
    close(ours.mean, theirs.running_mean)
    close(ours.var, theirs.running_var)
    before = ours.mean.clone()
    check_same_as(ours.eval(), theirs.eval(), x[:1], PAIRS)
    check_same_as(ours, theirs, x, PAIRS)
    assert torch.equal(ours.mean, before) # evaluation leaves them alone

def test_running_statistics_stay_the_same_tensors():
    # a CUDA graph replays into the tensors that it has seen
    norm = BatchNorm(5)
    before = norm.state_dict()
    norm.forward(torch.randn(7, 5))
    after = norm.state_dict()
    assert all(after[name] is before[name] for name in before)
    assert after['mean'].abs().max() > 0

def test_running_statistics_are_not_part_of_a_graph():
    norm = BatchNorm(5)
    x = torch.randn(7, 5, requires_grad=True)
    norm.forward(x).sum().backward()
    assert not norm.mean.requires_grad and not norm.var.requires_grad
    deepcopy(norm)

def test_running_statistics_survive_copy_save_and_dtype():
    norm = BatchNorm(5)
    norm.forward(torch.randn(7, 5) + 3)
    copy = deepcopy(norm)
    other = BatchNorm(5)
    other.load_state_dict(norm.state_dict())
    norm.forward(torch.randn(7, 5) - 3) # of the first alone
    assert torch.equal(copy.mean, other.mean) and not torch.equal(copy.mean, norm.mean)
    assert norm.to(torch.float64).mean.dtype == torch.float64
    norm.forward(doubles(7, 5))

def test_running_statistics_go_with_a_learner(few):
    def make():
        torch.manual_seed(1)
        model = Sequential([Linear(784, 5), BatchNorm(5), ReLU(), Linear(5, 10)])
        data = Data(*(t[:128] for t in few))
        return Learner(model, data, SGD(model.parameters(), lr=0.1), CrossEntropy(),
                       callbacks=[], generator=torch.Generator().manual_seed(2))
    one = make()
    one.fit(1)
    state = deepcopy(one.state_dict())
    two = make()
    two.load_state_dict(state)
    for learn in (one, two): learn.fit(1)
    assert torch.equal(one.model.layers[1].mean, two.model.layers[1].mean)
    x = few.x_valid[:9]
    assert torch.equal(one.predict(x), two.predict(x))
    assert torch.equal(one.predict(x)[:1], one.predict(x[:1])) # no leak in evaluation

@pytest.mark.parametrize('train', [True, False])
def test_batch_norm_gradient(train):
    norm = BatchNorm(5).train(train)
    norm.w = torch.randn(5)
    norm.b = torch.randn(5)
    check_layer(norm, torch.randn(7, 5))

def test_examples_leak_into_each_other_in_training_alone():
    norm = BatchNorm(5)
    x = torch.randn(4, 5)
    other = x.clone()
    other[3] += 1
    assert (norm.forward(other)[0] - norm.forward(x)[0]).abs().max() > 0.1
    norm(x)
    grad = torch.zeros(4, 5)
    grad[0] = 1
    assert (norm.backward(grad).abs().sum(1) > 0.01).all()
    norm.eval()
    assert torch.equal(norm.forward(other)[0], norm.forward(x)[0])

def test_batch_norm_refuses_one_row_in_training_alone():
    with pytest.raises(ValueError, match=r'BatchNorm\(5\) in training: rows is 1, '
                                         'expected an integer, at least 2'):
        BatchNorm(5).forward(torch.randn(1, 5))
    BatchNorm(5).forward(torch.randn(2, 5))
    assert BatchNorm(5).eval().forward(torch.randn(1, 5)).shape == (1, 5)

norms = pytest.mark.parametrize('Norm', [BatchNorm, LayerNorm])

@norms
@pytest.mark.parametrize('shape', [(7, 4), (5,), (2, 7, 5)])
def test_norms_refuse_other_shapes(Norm, shape):
    words = r'Norm\(5\): x has shape .*, expected \(n, 5\)'
    with pytest.raises(ValueError, match=words):
        Norm(5).forward(torch.randn(shape))

@norms
@pytest.mark.parametrize('n', [0, -1, 2.5])
def test_norms_refuse_a_wrong_number_of_columns(Norm, n):
    with pytest.raises(ValueError, match=f'{Norm.__name__}: n is {n}'): Norm(n)

@norms
def test_norms_show_their_columns(Norm):
    assert [repr(Norm(n)) for n in (1, 5)] == [f'{Norm.__name__}({n})' for n in (1, 5)]

def test_default_settings():
    assert BatchNorm(5).eps == LayerNorm(5).eps == 1e-5
    assert BatchNorm(5).momentum == 0.1

# ---- layer normalization

@pytest.mark.parametrize('eps', [1e-5, 0.3])
def test_layer_norm_layer_is_that_of_pytorch(eps):
    theirs = nn.LayerNorm(5, eps=eps).double()
    for p in theirs.parameters(): nn.init.normal_(p)
    ours = LayerNorm(5, eps=eps).to(torch.float64)
    check_same_as(ours, theirs, doubles(7, 5)*3 + 2, PAIRS)

def test_layer_norm_and_its_gradient_are_those_of_pytorch():
    x, w, b, grad = doubles(7, 5), doubles(5), doubles(5), doubles(7, 5)
    leaves = [t.clone().requires_grad_() for t in (x, w, b)]
    theirs = F.layer_norm(leaves[0], (5,), *leaves[1:], eps=0.1)
    close(layer_norm(x, w, b, 0.1), theirs)
    theirs.backward(grad)
    for ours, leaf in zip(layer_norm_grad(grad, x, w, 0.1), leaves):
        close(ours, leaf.grad)

def test_layer_norm_does_the_same_in_training_and_evaluation_and_row_by_row():
    x = torch.randn(7, 5)
    norm = LayerNorm(5)
    out = norm.forward(x)
    assert type(out) is Tensor and out.dtype == torch.float32
    assert torch.equal(norm.eval().forward(x), out)
    torch.testing.assert_close(norm.train().forward(x[:1]), out[:1])

def wrong_layer_norm_grad(dim=1, mean=1, part=1, sign=1, w_axis=0):
    def f(grad, x, w, b):
        mu = x.mean(1, keepdim=True)
        s = (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        x_hat = (x - mu)/s
        h = grad*w
        d = h - mean*h.mean(dim, keepdim=True)
        d = d - part*x_hat*(h*x_hat).mean(dim, keepdim=True)
        return sign*d/s, (grad*x_hat).sum(w_axis), grad.sum(w_axis)
    return f

def test_layer_norm_gradient_and_the_one_written_out():
    def ours(grad, x, w, b): return layer_norm_grad(grad, x, w)
    inputs = torch.randn(5, 5), torch.randn(5), torch.randn(5)
    check_grads(layer_norm, ours, *inputs)
    check_grads(layer_norm, wrong_layer_norm_grad(), *inputs)

@pytest.mark.parametrize('name, fault', [
    ('x', dict(dim=0)), ('x', dict(mean=0)), ('x', dict(part=0)), ('x', dict(sign=-1)),
    ('x', dict(mean=2)), ('w', dict(w_axis=1))])
def test_check_grads_finds_a_wrong_layer_norm_gradient(name, fault):
    inputs = torch.randn(5, 5), torch.randn(5), torch.randn(5)
    with pytest.raises(AssertionError, match=f'{name}: off'):
        check_grads(layer_norm, wrong_layer_norm_grad(**fault), *inputs)

# ---- GELU

@pytest.mark.parametrize('shape', [(7, 5), (2, 3, 4)])
def test_gelu_layer_is_that_of_pytorch(shape):
    check_same_as(GELU(), nn.GELU(), doubles(*shape)*3)

def test_gelu_grad_is_that_of_sympy():
    t = sympy.symbols('t', real=True)
    slope = sympy.diff(t*(1 + sympy.erf(t/sympy.sqrt(2)))/2, t)
    x = doubles(5)*2
    slopes = [float(slope.subs(t, v)) for v in x.tolist()]
    expected = torch.tensor(slopes, dtype=x.dtype)
    close(gelu_grad(torch.full((5,), 3.).double(), x), 3*expected)

def test_gelu_far_from_0_is_a_relu():
    assert torch.equal(gelu(torch.tensor([0., 40., -40.])), torch.tensor([0., 40., 0.]))
    assert type(GELU().forward(torch.randn(7, 5))) is Tensor

# ---- Residual

def test_block_is_checked_in_all_its_parameters():
    block = Residual([LayerNorm(5), Linear(5, 8), GELU(), Linear(8, 5)])
    for p in block.parameters(): p += torch.randn(p.shape)*0.3
    errors = check_layer(block, torch.randn(7, 5))
    assert len(errors) == 7 # x, and six parameters

def test_block_is_that_of_pytorch():
    class Theirs(nn.Sequential):
        def forward(self, x): return x + super().forward(x)
    theirs = Theirs(nn.LayerNorm(5), nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 5))
    theirs = theirs.double()
    ours = Residual([LayerNorm(5), Linear(5, 8), GELU(), Linear(8, 5)])
    ours.to(torch.float64)
    for p, q in zip(theirs.parameters(), ours.parameters()): q.copy_(p.detach().t())
    x = doubles(7, 5).requires_grad_()
    out = theirs(x)
    grad = doubles(7, 5)
    out.backward(grad)
    close(ours(x.detach()), out)
    close(ours.forward(x.detach()), out)
    close(ours.backward(grad), x.grad)
    for p, q in zip(theirs.parameters(), ours.parameters()): close(q.grad, p.grad.t())

@pytest.fixture
def model():
    "The same block twice, another one, and a layer for ten classes."
    g = torch.Generator().manual_seed(5)
    block = Residual([BatchNorm(5), Linear(5, 5, generator=g), Dropout(0.5, g)])
    return Sequential([block, ReLU(), block, Residual([Linear(5, 5)]), Linear(5, 10)])

def test_layers_in_a_block_follow_its_mode(model):
    assert len(model.modules()) > 8
    assert not any(module.training for module in model.eval().modules())
    assert all(module.training for module in model.train().modules())

def test_layers_in_a_block_have_names_and_parameters_once(model):
    assert len(model.parameters()) == 8
    inner = ['0.w', '0.b', '0.mean', '0.var', '1.w', '1.b']
    names = [f'{i}.{name}' for i in (0, 2) for name in inner]
    assert list(model.state_dict()) == [*names, '3.0.w', '3.0.b', '4.w', '4.b']

def test_gradients_of_a_block_that_stands_twice(model):
    model.eval()
    for buffer in model.layers[0].layers[0].buffers: # not 0 and 1
        getattr(model.layers[0].layers[0], buffer).add_(0.5)
    x = torch.randn(7, 5)
    y = torch.arange(7)
    loss = CrossEntropy()
    leaves = [p.clone().double().requires_grad_() for p in model.parameters()]
    model.zero_grad()
    loss(model(x), y)
    model.backward(loss.backward())
    def by_autograd(w, b, w1, b1, w2, b2, w3, b3):
        def f(v): return v + ((v-0.5)/(1.5 + 1e-5)**0.5*w + b)@w1 + b1
        v = f(f(x.double()).relu())
        return F.cross_entropy((v + v@w2 + b2)@w3 + b3, y)
    by_autograd(*leaves).backward()
    for p, leaf in zip(model.parameters(), leaves):
        torch.testing.assert_close(p.grad, leaf.grad.float(), rtol=1e-4, atol=1e-6)
    model.zero_grad()
    assert all(p.grad is None for p in model.layers[0].parameters())

def test_only_the_outermost_call_uses_a_stack(model):
    x = torch.randn(7, 5)
    model.forward(x)
    assert not any(module.stack for module in model.modules())
    model(x)
    assert len(model.stack) == 1
    assert not any(module.stack for module in model.modules()[1:])
    model.backward(torch.ones(7, 10))
    assert not any(module.stack for module in model.modules())

def test_forward_of_a_block_is_its_call(model):
    block = model.eval().layers[0]
    x = torch.randn(7, 5)
    assert torch.equal(block.forward(x), block(x))

def test_state_of_blocks_can_be_put_back(model):
    model.eval()
    x = torch.randn(7, 5)
    copy = deepcopy(model)
    for p in copy.parameters(): p.zero_()
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy.forward(x), model.forward(x))
    with pytest.raises(ValueError, match='load_state_dict'): copy.load_state_dict({})

def test_dropout_in_a_block_is_on_in_training(model):
    x = torch.randn(7, 5)
    assert not torch.equal(model.train().forward(x), model.forward(x))

@pytest.mark.parametrize('call', [Residual.forward, Residual.__call__])
def test_block_must_keep_the_shape(call):
    words = r'Residual\(Linear\(5, 1\)\): f\(x\) has shape \(7, 1\), expected \(7, 5\)'
    with pytest.raises(ValueError, match=words):
        call(Residual([Linear(5, 1)]), torch.randn(7, 5))

def test_block_holds_layers_alone():
    with pytest.raises(ValueError, match='Residual: 3 is not a layer'): Residual([3])

def test_block_has_no_backward_without_a_call():
    with pytest.raises(RuntimeError, match='without a forward'):
        Residual([ReLU()]).backward(torch.ones(7, 5))

def test_block_shows_its_layers():
    assert repr(Residual([ReLU(), GELU()])) == 'Residual(ReLU(), GELU())'

def test_empty_block_doubles():
    block = Residual([])
    x = torch.randn(7, 5)
    assert torch.equal(block(x), 2*x)
    assert torch.equal(block.backward(x), 2*x)

def test_block_as_first_layer_fills_its_gradients():
    block = Residual([Linear(5, 5)])
    x = torch.randn(7, 5)
    block(x)
    block.backward(x, need_inp=False)
    torch.testing.assert_close(block.parameters()[0].grad, x.t()@x)

# ---- normalized inputs

@pytest.mark.parametrize('mean, std', [
    (3., 2.), (torch.tensor(3.), torch.tensor(2.)),
    (torch.tensor([1., 2., 3.]), torch.tensor([0.5, 2., 4.]))])
def test_normalize_is_the_function_and_its_gradient(mean, std):
    x = 5*torch.randn(7, 3)
    layer = Normalize(mean, std)
    torch.testing.assert_close(layer(x), (x - mean)/std)
    torch.testing.assert_close(layer.backward(torch.ones(7, 3)), torch.ones(7, 3)/std)
    check_layer(layer, x)

def test_normalize_is_saved_with_the_weights_and_not_trained():
    raw = torch.rand(50, 3)*9
    model = Sequential([Normalize(raw.mean(), raw.std()), Linear(3, 2)])
    assert len(model.parameters()) == 2
    other = Sequential([Normalize(), Linear(3, 2)])
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(raw), model(raw), rtol=0, atol=0)

@pytest.mark.parametrize('std', [0., -1., torch.tensor([1., 0.])])
def test_normalize_needs_a_spread(std):
    with pytest.raises(ValueError, match='expected above 0'): Normalize(0., std)
