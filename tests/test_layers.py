"Layers by hand: outputs and gradients against autograd, what is kept, what is refused."
import copy
import gc
import weakref

import numpy as np
import pytest
import sympy
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from fcnet.backward import linear_grad, mse_grad, relative_error, relu_grad
from fcnet.classify import CrossEntropy
from fcnet.layers import (MSE, Linear, Module, ReLU, Sequential, Sigmoid, Tanh,
                          check_autocast, check_dtype, check_layer, sigmoid_grad,
                          tanh_grad)
from fcnet.optim import SGD, Adam, AdamW, decay_groups

F64 = torch.float64


def network(dtype=torch.float32):
    return Sequential([Linear(5, 4), ReLU(), Linear(4, 3)]).to(dtype)


def backward_pass(model, loss, x, targ, need_inp=True):
    "The loss and the input's gradient of one step by hand."
    model.zero_grad()
    value = loss(model(x), targ)
    return value, model.backward(loss.backward(), need_inp=need_inp)


def autograd_pass(x, targ, params):
    "Loss, and gradients of input and parameters, of linear, ReLU, linear, by autograd."
    leaves = [t.detach().clone().requires_grad_() for t in (x, *params)]
    x, w1, b1, w2, b2 = leaves
    loss = F.mse_loss(F.linear(F.relu(F.linear(x, w1.t(), b1)), w2.t(), b2), targ)
    return loss.detach(), torch.autograd.grad(loss, leaves)


class Square(Module):
    def fwd(self, x): return x*x, x
    def bwd(self, grad, x, need_inp): return (2*grad*x,)


class Counter(ReLU):
    buffers = ('seen',)
    def __init__(self):
        super().__init__()
        self.seen = torch.zeros(1)


class NoBias(Linear):
    "Forgets the gradient of its bias."
    def bwd(self, grad, x, need_inp):
        d_x, d_w, d_b = linear_grad(grad, x, self.w, need_inp)
        return d_x, d_w, 0*d_b


class Interrupted(Module):
    def fwd(self, *args): raise KeyboardInterrupt


class BreaksBackward(ReLU):
    broken = True
    def bwd(self, grad, out, need_inp):
        if self.broken: raise KeyboardInterrupt
        return super().bwd(grad, out, need_inp)


# Outputs and gradients

def test_relu_layer_is_relu_and_its_gradient():
    layer = ReLU()
    assert layer(torch.tensor([[-1., 2., 0., 3.]])).tolist() == [[0, 2, 0, 3]]
    grad = layer.backward(torch.tensor([[5., 6., 7., 8.]]))
    assert grad.tolist() == [[0, 6, 0, 8]]


def test_relu_keeps_its_output_and_not_its_input():
    layer = ReLU()
    out = layer(torch.randn(3, 2))
    assert layer.stack[0] is out


def test_mse_layer_by_hand():
    loss = MSE()
    assert loss(torch.tensor([3., 5.]), torch.tensor([1., 1.])) == 10
    assert loss.backward().tolist() == [2, 4]


def test_backward_of_a_loss_is_scaled_by_the_gradient_from_above():
    loss = MSE()
    out = torch.randn(7, 3)
    targ = torch.randn(7, 3)
    loss(out, targ)
    once = loss.backward()
    loss(out, targ)
    assert_close(loss.backward(0.25), once/4)


@pytest.mark.parametrize('ours, theirs', [
    (ReLU(), F.relu), (Sigmoid(), torch.sigmoid), (Tanh(), torch.tanh)],
    ids=['relu', 'sigmoid', 'tanh'])
def test_activations_equal_pytorchs(ours, theirs):
    x = 3*torch.randn(50, 7, dtype=F64)
    leaf = x.clone().requires_grad_()
    out = theirs(leaf)
    grad = torch.randn(50, 7, dtype=F64)
    out.backward(grad)
    assert_close(ours(x), out.detach(), rtol=1e-12, atol=1e-14)
    assert_close(ours.backward(grad), leaf.grad, rtol=1e-12, atol=1e-14)
    assert_close(ours.forward(x), out.detach(), rtol=1e-12, atol=1e-14)


T = sympy.symbols('t', real=True)


@pytest.mark.parametrize('f, formula', [
    (sigmoid_grad, 1/(1 + sympy.exp(-T))), (tanh_grad, sympy.tanh(T))])
def test_slopes_of_sigmoid_and_tanh_by_sympy(f, formula):
    at = torch.tensor([-2.5, -0.3, 0.7], dtype=F64)
    slope = sympy.diff(formula, T)
    expected = [float(slope.subs(T, v)) for v in at.tolist()]
    assert_close(f(torch.ones_like(at), at).tolist(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize('f', [sigmoid_grad, tanh_grad])
def test_gradients_of_activations_refuse_shapes_that_would_broadcast(f):
    with pytest.raises(ValueError, match=f'{f.__name__}: grad has shape'):
        f(torch.ones(4, 1), torch.ones(4))


@pytest.mark.parametrize('f', [sigmoid_grad, tanh_grad])
def test_gradients_of_activations_do_not_overflow_far_out(f):
    far = torch.tensor([-1e4, 1e4])
    assert f(torch.ones(2), far).tolist() == [0, 0]


@pytest.mark.parametrize('n', [1, 2, 64])
def test_five_gradients_equal_autograds(n):
    model = network(F64)
    for p in model.parameters(): p += torch.randn_like(p)
    x = torch.randn(n, 5, dtype=F64)
    targ = torch.randn(n, 3, dtype=F64)
    loss, d_x = backward_pass(model, MSE(), x, targ)
    their_loss, theirs = autograd_pass(x, targ, model.parameters())
    assert_close(loss, their_loss, rtol=1e-12, atol=0)
    ours = [d_x, *(p.grad for p in model.parameters())]
    for mine, their in zip(ours, theirs, strict=True):
        assert mine.shape == their.shape
        assert relative_error(mine, their) < 1e-12


def test_same_outputs_and_gradients_as_nn_sequential():
    model = network(F64)
    theirs = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    with torch.no_grad():
        for mine, their in zip(model.parameters(), theirs.parameters(), strict=True):
            their.copy_(mine.t() if mine.dim() == 2 else mine)
    x = torch.randn(6, 5, dtype=F64)
    targ = torch.randn(6, 3, dtype=F64)
    assert_close(model(x), theirs(x).detach(), rtol=1e-12, atol=1e-12)
    backward_pass(model, MSE(), x, targ)
    F.mse_loss(theirs(x), targ).backward()
    for mine, their in zip(model.parameters(), theirs.parameters(), strict=True):
        assert relative_error(mine.grad.t(), their.grad) < 1e-12


def test_a_layer_used_twice_gets_the_sum_of_both_gradients():
    twice = Linear(5, 5).to(F64)
    twice.b = torch.randn(5, dtype=F64)
    model = Sequential([twice, ReLU(), twice])
    x = torch.randn(7, 5, dtype=F64)
    targ = torch.randn(7, 5, dtype=F64)
    _, d_x = backward_pass(model, MSE(), x, targ)
    w, b, leaf = (t.detach().clone().requires_grad_() for t in (twice.w, twice.b, x))
    F.mse_loss(F.relu(leaf@w + b)@w + b, targ).backward()
    assert len(model.parameters()) == 2
    for mine, their in [(twice.w.grad, w.grad), (twice.b.grad, b.grad),
                        (d_x, leaf.grad)]:
        assert relative_error(mine, their) < 1e-12


def test_two_backward_passes_add_up():
    model = network(F64)
    loss = MSE()
    x = torch.randn(7, 5, dtype=F64)
    targ = torch.randn(7, 3, dtype=F64)
    backward_pass(model, loss, x, targ)
    once = [p.grad.clone() for p in model.parameters()]
    loss(model(x), targ)
    model.backward(loss.backward())
    for p, grad in zip(model.parameters(), once): assert_close(p.grad, 2*grad)


def test_adding_leaves_the_gradients_that_were_handed_out_as_they_are():
    layer = Linear(5, 3)
    layer(torch.randn(7, 5))
    layer.backward(torch.ones(7, 3))
    first = layer.w.grad
    before = first.clone()
    layer(torch.randn(7, 5))
    layer.backward(torch.ones(7, 3))
    assert torch.equal(first, before)
    assert not torch.equal(layer.w.grad, before)


def test_gradient_from_above_scales_all_gradients():
    model = network()
    loss = MSE()
    x = torch.randn(7, 5)
    targ = torch.randn(7, 3)
    backward_pass(model, loss, x, targ)
    once = [p.grad for p in model.parameters()]
    model.zero_grad()
    loss(model(x), targ)
    model.backward(loss.backward(0.25))
    for p, grad in zip(model.parameters(), once): assert_close(p.grad, grad/4)


def test_only_the_first_layer_is_spared_the_inputs_gradient():
    model = Sequential([Linear(5, 4), Linear(4, 3)])
    _, d_x = backward_pass(model, MSE(), torch.randn(7, 5), torch.randn(7, 3),
                           need_inp=False)
    assert d_x is None
    assert all(p.grad.shape == p.shape for p in model.parameters())


def test_the_inputs_gradient_is_computed_unless_it_is_declined():
    layer = Linear(5, 3)
    model = Sequential([layer])
    for part in (layer, model):
        part(torch.randn(2, 5))
        assert part.backward(torch.ones(2, 3)).shape == (2, 5)
        part(torch.randn(2, 5))
        assert part.backward(torch.ones(2, 3), need_inp=False) is None


def test_sequential_of_no_layers_is_the_identity():
    empty = Sequential([])
    x = torch.randn(2, 5)
    assert torch.equal(empty(x), x)
    grad = torch.randn(2, 5)
    assert torch.equal(empty.backward(grad), grad)
    assert empty.parameters() == []
    assert torch.equal(empty.forward(x), x)


def test_sequential_in_sequential_is_the_same_as_one_row():
    layers = [Linear(5, 4), ReLU(), Linear(4, 4), Tanh(), Linear(4, 3)]
    flat = Sequential(layers)
    nested = Sequential([layers[0], Sequential([layers[1], Sequential(layers[2:4])]),
                         layers[4]])
    x = torch.randn(7, 5)
    targ = torch.randn(7, 3)
    value, d_x = backward_pass(flat, MSE(), x, targ)
    grads = [p.grad for p in flat.parameters()]
    other, other_d_x = backward_pass(nested, MSE(), x, targ)
    assert torch.equal(value, other)
    assert torch.equal(d_x, other_d_x)
    for p, grad in zip(nested.parameters(), grads, strict=True):
        assert torch.equal(p.grad, grad)
    assert torch.equal(nested.forward(x), flat.forward(x))
    assert not any(part.stack for part in nested.modules())


def test_pytorchs_optimizer_trains_our_layers(digits):
    x = digits.x_train[:1000]
    targ = digits.y_train[:1000, None].float()
    model = Sequential([Linear(784, 50), ReLU(), Linear(50, 1, std=0.02)])
    loss = MSE()
    opt = torch.optim.SGD(model.parameters(), lr=0.003)
    for _ in range(10):
        value = loss(model(x), targ)
        model.backward(loss.backward(), need_inp=False)
        opt.step()
        opt.zero_grad()
    assert value < 8  # a constant 4.5 has 8.4


# The stack: what is kept for a backward pass, and what is not

def test_calls_are_undone_last_first():
    square = Square()
    assert square(torch.tensor(3.)) == 9
    assert square(torch.tensor(5.)) == 25
    assert square.stack == [3, 5]
    assert square.backward(1) == 2*5
    assert square.backward(1) == 2*3
    with pytest.raises(RuntimeError, match=r'Square\(\): backward without a forward'):
        square.backward(1)


def test_a_layer_called_three_times_is_undone_three_times():
    layer = Linear(5, 3).to(F64)
    inputs = torch.randn(3, 7, 5, dtype=F64)
    grads = torch.randn(3, 7, 3, dtype=F64)
    for x in inputs: layer(x)
    for grad in reversed(grads):
        before = layer.w.grad
        layer.backward(grad)
    expected = sum(x.t()@grad for x, grad in zip(inputs, grads))
    assert_close(layer.w.grad, expected)
    assert not torch.equal(layer.w.grad, before)
    assert_close(layer.b.grad, grads.sum((0, 1)))
    with pytest.raises(RuntimeError, match='without a forward'):
        layer.backward(grads[0])


def test_a_new_layer_has_nothing_to_undo():
    for part in (Linear(5, 3), network(), MSE()):
        with pytest.raises(RuntimeError, match='backward without a forward to undo'):
            part.backward(torch.ones(1))


def test_only_the_outermost_call_uses_a_stack():
    inner = Sequential([Linear(5, 4), ReLU()])
    model = Sequential([inner, Linear(4, 3)])
    model(torch.randn(2, 5))
    assert [len(part.stack) for part in model.modules()] == [1, 0, 0, 0, 0]


def test_calling_sequential_starts_a_new_pass():
    model = network()
    loss = MSE()
    x = torch.randn(7, 5)
    targ = torch.randn(7, 3)
    backward_pass(model, loss, x, targ)
    expected = [p.grad for p in model.parameters()]
    model(torch.randn(7, 5))  # never undone
    assert len(model.stack) == 1
    backward_pass(model, loss, x, targ)
    for p, grad in zip(model.parameters(), expected): assert torch.equal(p.grad, grad)
    with pytest.raises(RuntimeError, match='without a forward'):
        model.backward(torch.ones(7, 3))


def test_a_forward_pass_that_failed_cannot_be_undone():
    model = Sequential([Linear(5, 4), Interrupted()])
    with pytest.raises(KeyboardInterrupt): model(torch.randn(2, 5))
    with pytest.raises(RuntimeError, match='without a forward'):
        model.backward(torch.ones(2, 4))


def test_a_pass_that_fails_after_another_forgets_that_one():
    model = network()
    model(torch.randn(2, 5))
    with pytest.raises(ValueError): model(torch.randn(2, 6))
    with pytest.raises(RuntimeError, match='without a forward'):
        model.backward(torch.ones(2, 3))


def test_a_backward_pass_that_failed_does_not_spoil_the_next():
    breaks = BreaksBackward()
    model = Sequential([Linear(5, 4), breaks, Linear(4, 3)])
    loss = MSE()
    x = torch.randn(7, 5)
    targ = torch.randn(7, 3)
    with pytest.raises(KeyboardInterrupt): backward_pass(model, loss, x, targ)
    with pytest.raises(RuntimeError, match='without a forward'):
        model.backward(torch.ones(7, 3))
    breaks.broken = False
    backward_pass(model, loss, x, targ)
    _, theirs = autograd_pass(x, targ, model.parameters())
    for p, grad in zip(model.parameters(), theirs[1:]): assert_close(p.grad, grad)
    assert not any(part.stack for part in model.modules())


@pytest.mark.parametrize('make', [network, lambda: Linear(5, 3), lambda: Tanh()],
                         ids=['Sequential', 'Linear', 'Tanh'])
def test_no_grad_keeps_nothing(make):
    part = make()
    x = torch.randn(2, 5)
    with torch.no_grad(): out = part(x)
    assert not any(m.stack for m in part.modules())
    with pytest.raises(RuntimeError, match='under no_grad'):
        part.backward(torch.ones_like(out))
    with torch.inference_mode(): part(x)
    assert not part.stack


def test_a_call_that_autograd_records_keeps_nothing():
    model = network()
    leaf = torch.randn(2, 5, requires_grad=True)
    out = model(leaf)
    assert out.requires_grad
    assert not any(part.stack for part in model.modules())
    with pytest.raises(RuntimeError, match='autograd records'):
        model.backward(torch.ones(2, 3))


def test_autograd_goes_through_our_layers():
    model = network(F64)
    loss = MSE()
    x = torch.randn(7, 5, dtype=F64)
    targ = torch.randn(7, 3, dtype=F64)
    _, d_x = backward_pass(model, loss, x, targ)
    leaf = x.clone().requires_grad_()
    loss(model(leaf), targ).backward()
    assert relative_error(leaf.grad, d_x) < 1e-12


def freed(use):
    "Is an input forgotten once `use(x)` is done?"
    x = torch.randn(3, 5)
    use(x)
    watch = weakref.ref(x)
    del x
    gc.collect()
    return watch() is None


def test_what_is_kept_alive():
    model = network()
    loss = MSE()
    targ = torch.randn(3, 3)

    def under_no_grad(x):
        with torch.no_grad(): loss(model(x), targ)

    assert freed(model.forward)
    assert freed(under_no_grad)
    assert freed(lambda x: loss.forward(model.forward(x), targ))
    assert freed(lambda x: backward_pass(model, loss, x, targ))
    assert not freed(model)  # a call waits for its backward pass
    assert not any(part.stack for part in (model.layers[0], loss))


def test_a_loss_of_ours_with_an_nn_module_keeps_nothing_alive():
    net = nn.Linear(5, 3)
    loss = MSE()
    watches = []

    def step():
        out = net(torch.randn(7, 5))
        targ = torch.randn(7, 3)
        value = loss(out, targ)
        watches.extend([weakref.ref(out), weakref.ref(targ), weakref.ref(value)])
        value.backward()

    for _ in range(2): step()
    gc.collect()
    assert [watch() for watch in watches] == [None]*6
    assert loss.stack == []
    assert net.weight.grad is not None
    with pytest.raises(RuntimeError, match='without a forward'): loss.backward()


def test_forward_equals_a_call():
    model = network()
    loss = MSE()
    x = torch.randn(7, 5)
    targ = torch.randn(7, 3)
    assert torch.equal(model.forward(x), model(x))
    assert torch.equal(loss.forward(model(x), targ), loss(model(x), targ))


# What is refused

@pytest.mark.parametrize('shape', [(5,), (7, 4), (2, 2, 5), (5, 7)])
def test_linear_refuses_wrong_shapes(shape):
    layer = Linear(5, 3)
    for run in (layer, layer.forward):
        with pytest.raises(ValueError) as error: run(torch.randn(shape))
        assert str(error.value) == (f'Linear(5, 3): x has shape {shape}, '
                                    'expected (n, 5)')


def test_linear_takes_any_number_of_rows():
    layer = Linear(5, 3)
    for n in (0, 1, 8): assert layer(torch.randn(n, 5)).shape == (n, 3)


@pytest.mark.parametrize('dtype', [F64, torch.float16, torch.int64])
def test_linear_refuses_another_dtype(dtype):
    model = network()
    for run in (model, model.forward):
        with pytest.raises(ValueError, match=f'Linear.5, 4.: x is {dtype}, '
                           'expected torch.float32 like the weights'):
            run(torch.ones(4, 5, dtype=dtype))


def test_check_dtype_names_where():
    check_dtype('here', torch.ones(1), torch.float32)
    with pytest.raises(ValueError, match='here: x is torch.float32'):
        check_dtype('here', torch.ones(1), F64)


def test_mse_refuses_targets_that_would_broadcast():
    model = Sequential([Linear(5, 4)])
    with pytest.raises(ValueError, match=r'\(4, 4\), targ has \(4,\)'):
        MSE()(model(torch.randn(4, 5)), torch.randn(4))
    with pytest.raises(ValueError, match=r'\(4, 1\)'):
        MSE()(torch.ones(4, 1), torch.ones(4))


def test_autocast_is_refused_before_anything_runs():
    model = network()
    x = torch.randn(2, 5)
    with torch.autocast('cpu'):
        for run in (model, model.forward, model.layers[0]):
            with pytest.raises(ValueError,
                               match=r'Linear\(5, 4\): torch.autocast is on'):
                run(x)
        with pytest.raises(ValueError, match='here: torch.autocast is on'):
            check_autocast('here', x)
        check_autocast('here', x.to('meta'))  # a device of shapes alone
    assert not any(part.stack for part in model.modules())
    model(x)


@pytest.mark.parametrize('n_in, n_out, named', [
    (0, 3, 'n_in is 0'), (3, -1, 'n_out is -1'), (2.5, 3, 'n_in is 2.5'),
    ('3', 3, "n_in is '3'"), (3, True, 'n_out is True')])
def test_linear_refuses_sizes(n_in, n_out, named):
    with pytest.raises(ValueError, match=f'Linear: {named}, expected an integer'):
        Linear(n_in, n_out)


@pytest.mark.parametrize('std', [-1, float('nan'), float('inf')])
def test_linear_refuses_std(std):
    with pytest.raises(ValueError, match=f'Linear: std is {std}, expected at least 0'):
        Linear(5, 3, std=std)


@pytest.mark.parametrize('part', [ReLU, torch.relu, None, nn.ReLU(), 'relu'])
def test_sequential_refuses_what_is_no_layer(part):
    with pytest.raises(ValueError, match='Sequential: .* is not a layer'):
        Sequential([ReLU(), part])


def test_subclass_of_sequential_is_named_in_the_error():
    class Block(Sequential): pass
    with pytest.raises(ValueError, match='Block: None is not a layer'): Block([None])
    assert repr(Block([ReLU()])) == 'Block(ReLU())'


# Layers that are half written

class NoFwd(Module): pass


class NoBwd(Module):
    def fwd(self, x): return x, None


class NoComma(ReLU):
    def bwd(self, grad, out, need_inp): return relu_grad(grad, out)


class AList(ReLU):
    def bwd(self, grad, out, need_inp): return [relu_grad(grad, out)]


class OneMore(ReLU):
    def bwd(self, grad, out, need_inp): return relu_grad(grad, out), None


class NoB(Linear):
    def bwd(self, grad, x, need_inp): return linear_grad(grad, x, self.w)[:2]


def test_a_missing_fwd_or_bwd_is_named():
    for run in (NoFwd(), NoFwd().forward):
        with pytest.raises(NotImplementedError, match='NoFwd.fwd'):
            run(torch.ones(1, 5))
    unwritten = NoBwd()
    unwritten(torch.randn(1, 5))
    with pytest.raises(NotImplementedError, match='NoBwd.bwd'): unwritten.backward()


@pytest.mark.parametrize('make, names', [
    (NoComma, 'the input'), (AList, 'the input'), (OneMore, 'the input'),
    (lambda: NoB(5, 3), 'the input, w, b')])
def test_a_wrong_number_of_gradients_is_named(make, names):
    layer = make()
    for part in (layer, Sequential([layer])):
        out = part(torch.randn(1, 5))
        with pytest.raises(TypeError) as error: part.backward(torch.ones_like(out))
        assert str(error.value) == (f'{layer}: bwd must return a tuple, '
                                    f'gradients for {names}')


# How layers start, what they list

def test_first_weights():
    assert abs(Linear(800, 500).w.std()/0.05 - 1) < 0.01
    assert abs(Linear(800, 500, std=0.02).w.std()/0.02 - 1) < 0.01
    assert (Linear(2, 3, std=0.).w == 0).all()
    assert (Linear(2, 3).b == 0).all()
    assert Linear(2, 3).w.shape == (2, 3)
    assert Linear(2, 3).b.shape == (3,)


@pytest.mark.parametrize('std', [None, 0.02])
def test_a_seed_gives_the_same_weights_again(std):
    first, again = (Linear(2, 3, std, torch.Generator().manual_seed(1))
                    for _ in range(2))
    assert torch.equal(first.w, again.w)
    assert not torch.equal(first.w, Linear(2, 3, std).w)


def test_std_scales_kaimings_draw():
    drawn = Linear(8, 3, generator=torch.Generator().manual_seed(1)).w
    scaled = Linear(8, 3, std=0.25, generator=torch.Generator().manual_seed(1)).w
    assert_close(scaled, drawn/2)  # Kaiming's is 0.5 for 8 inputs


def test_names():
    model = Sequential([Linear(5, 4), ReLU(), Sigmoid(), Tanh()])
    assert str(model) == 'Sequential(Linear(5, 4), ReLU(), Sigmoid(), Tanh())'
    assert str(MSE()) == 'MSE()'
    assert str(Sequential([])) == 'Sequential()'


def test_a_list_of_layers_is_copied():
    layers = [Linear(5, 4)]
    model = Sequential(layers)
    layers.append(ReLU())
    assert len(model.layers) == 1
    assert model.modules() == [model, model.layers[0]]


def test_modules_and_parameters_of_nested_parts():
    inner = Sequential([Linear(5, 4), ReLU()])
    last = Linear(4, 3)
    model = Sequential([inner, last])
    assert model.modules() == [model, inner, *inner.layers, last]
    ours = [id(p) for p in model.parameters()]
    first = inner.layers[0]
    assert ours == [id(p) for p in (first.w, first.b, last.w, last.b)]
    assert ReLU().parameters() == []


def test_zero_grad_forgets_all_gradients():
    model = network()
    backward_pass(model, MSE(), torch.randn(7, 5), torch.randn(7, 3))
    assert all(p.grad is not None for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_training_mode_reaches_all_parts():
    model = Sequential([Sequential([Linear(5, 4), ReLU()]), Linear(4, 3)])
    assert all(part.training for part in model.modules())
    assert model.eval() is model
    assert not any(part.training for part in model.modules())
    assert model.train() is model
    assert all(part.training for part in model.modules())
    assert model.train(False) is model
    assert not any(part.training for part in model.modules())


# States

def test_state_dict_names_the_tensors_themselves():
    model = network()
    assert list(model.state_dict()) == ['0.w', '0.b', '2.w', '2.b']
    assert model.state_dict()['2.w'] is model.layers[2].w
    nested = Sequential([Sequential([Linear(5, 4)]), Counter()])
    assert list(nested.state_dict()) == ['0.0.w', '0.0.b', '1.seen']


def test_load_state_dict_copies():
    model = network()
    other = network()
    weights = other.layers[0].w
    other.load_state_dict(model.state_dict())
    x = torch.randn(7, 5)
    assert torch.equal(other(x), model(x))
    assert other.layers[0].w is weights
    weights.zero_()
    assert model.layers[0].w.norm() > 0


def test_load_state_dict_refuses_what_does_not_fit():
    model = network()
    state = model.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    wrong = [{**state, 'x': torch.ones(1)}, {f'1{k}': v for k, v in state.items()},
             {'0.w': state['0.w']}, {**state, '2.b': torch.ones(4)}, {}]
    for other in wrong:
        with pytest.raises(ValueError,
                           match=r"state has .*, expected .*'0.w': \(5, 4\)"):
            model.load_state_dict(other)
    with pytest.raises(ValueError, match=r"state has .*'0.w': \(5, 4\)"):
        Sequential([Linear(9, 4)]).load_state_dict(state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_buffers_are_saved_and_not_trained():
    model = Sequential([Counter()])
    model.layers[0].seen += 5
    other = Sequential([Counter()])
    other.load_state_dict(model.state_dict())
    assert list(model.state_dict()) == ['0.seen']
    assert model.parameters() == []
    assert other.layers[0].seen.item() == 5


def test_to_keeps_the_tensors_and_moves_their_gradients():
    model = Sequential([Linear(5, 4), Counter()])
    weights = model.layers[0].w
    backward_pass(model, MSE(), torch.randn(7, 5), torch.randn(7, 4))
    assert model.to(F64) is model
    assert model.layers[0].w is weights
    for p in model.parameters():
        assert p.dtype == F64
        assert p.grad.dtype == F64
    assert model.layers[1].seen.dtype == F64
    assert model.to(torch.float32)(torch.ones(2, 5)).dtype == torch.float32


# check_layer

@pytest.mark.parametrize('layer', [ReLU(), Sigmoid(), Tanh(), Square()], ids=str)
def test_check_layer_accepts_right_layers(layer):
    errors = check_layer(layer, torch.randn(7, 5))
    assert list(errors) == ['x']
    assert max(errors['x']) < 1e-6


def test_check_layer_names_input_and_parameters():
    assert list(check_layer(Linear(5, 3), torch.randn(7, 5))) == ['x', 'w', 'b']
    errors = check_layer(MSE(), torch.randn(7, 3), torch.randn(7, 3))
    assert list(errors) == ['x']


class HalfMSE(MSE):
    def bwd(self, grad, saved, need_inp): return (grad*mse_grad(*saved)/2,)


class NoUpstream(MSE):
    def bwd(self, grad, saved, need_inp): return (mse_grad(*saved),)


class NoGrad(Linear):
    def backward(self, grad, need_inp=True): return grad@self.w.t()



def faulty(f):
    class Faulty(Module):
        def fwd(self, x): return x.sigmoid(), x
        def bwd(self, grad, x, need_inp): return (f(grad, x),)
    return Faulty()


@pytest.mark.parametrize('layer, named', [
    (NoBias(5, 3), 'b: off by 1.0e.00'), (NoGrad(5, 3), 'w: off by 1.0e.00'),
    (faulty(lambda g, v: g*v.sigmoid()), 'x: off by'),
    (faulty(lambda g, v: -sigmoid_grad(g, v)), 'x: off by'),
    (faulty(tanh_grad), 'x: off by'),
    (Sequential([NoBias(5, 3)]), 'b_1: off by')])
def test_check_layer_names_what_is_off(layer, named):
    with pytest.raises(AssertionError, match=named):
        check_layer(layer, torch.randn(7, 5))


@pytest.mark.parametrize('loss', [HalfMSE(), NoUpstream()])
def test_check_layer_finds_wrong_losses(loss):
    with pytest.raises(AssertionError, match='x: off by'):
        check_layer(loss, torch.randn(7, 3), torch.randn(7, 3))


def test_check_layer_leaves_the_layer_as_it_was():
    layer = Linear(5, 3)
    weights = layer.w
    before = weights.clone()
    check_layer(layer, torch.randn(7, 5))
    assert layer.w is weights
    assert torch.equal(weights, before)
    assert weights.dtype == torch.float32
    assert weights.grad is None
    assert not layer.stack


def test_check_layer_takes_buffers_to_float64():
    class Fixed(Module):
        buffers = ('m',)
        def __init__(self):
            super().__init__()
            self.m = torch.randn(5, 3)
        def fwd(self, x): return x@self.m, None
        def bwd(self, grad, saved, need_inp): return (grad@self.m.t(),)
    check_layer(Fixed(), torch.randn(7, 5))


def test_check_layer_no_gradient_is_right_for_what_plays_no_part():
    class Idle(Linear):
        def forward(self, x): return 2*x
        def backward(self, grad, need_inp=True): return 2*grad
    assert list(check_layer(Idle(5, 3), torch.randn(7, 5))) == ['x', 'w', 'b']


def test_check_layer_of_a_model_checks_each_parameter_once():
    shared = Linear(5, 5)
    whole = Sequential([shared, ReLU(), shared, Linear(5, 3)])
    errors = check_layer(whole, torch.randn(7, 5))
    assert list(errors) == ['x', 'w_0', 'b_1', 'w_2', 'b_3']


# Memory of their own


class Handed(Module):
    "Two parameters with one gradient, and what else `bwd` may hand out."
    params = ('a', 'b', 'c')
    def __init__(self, third):
        super().__init__()
        self.a = torch.ones(3)
        self.b = torch.ones(3)
        self.c = torch.ones(7, 3)
        self.third = third
        self.own = torch.full((7, 3), 5.)
    def fwd(self, x): return x*self.a + self.b + self.c, x
    def bwd(self, grad, x, need_inp):
        self.d = grad.sum(0)
        found = {'upstream': grad, 'view': grad.view(3, 7).view(7, 3),
                 'weights': self.c, 'saved': x, 'kept': self.own,
                 'expanded': self.d.expand(7, 3)}
        return grad, self.d, self.d, found[self.third]


def clip(layer): nn.utils.clip_grad_norm_(layer.parameters(), 1e-3)
def fill(layer):
    for p in layer.parameters(): p.grad.fill_(9)
def zero(layer): torch.optim.SGD(layer.parameters(), lr=1).zero_grad(set_to_none=False)
def step(Opt, **settings):
    def run(layer): Opt(layer.parameters(), lr=0.1, **settings).step()
    return run


@pytest.mark.parametrize('change', [
    clip, fill, zero, step(SGD, momentum=0.9, weight_decay=0.1), step(AdamW),
    step(torch.optim.SGD, momentum=0.9, weight_decay=0.1), step(torch.optim.Adam)])
@pytest.mark.parametrize('third', ['upstream', 'view', 'weights', 'saved', 'kept',
                                   'expanded'])
def test_a_grad_is_nobody_elses_memory(change, third):
    layer = Handed(third)
    x = torch.randn(7, 3)
    grad = torch.randn(7, 3)
    others = [x, grad, layer.own]
    before = [t.clone() for t in others]
    for _ in range(2): # the second time they are added
        layer(x)
        assert layer.backward(grad) is grad
        change(layer)
        for t, was in zip(others, before): assert torch.equal(t, was)
        assert torch.equal(layer.d, grad.sum(0))
        places = {t.data_ptr() for t in (*others, *layer.parameters(), layer.d)}
        grads = [p.grad for p in layer.parameters()]
        assert not places & {g.data_ptr() for g in grads}
        assert len({g.data_ptr() for g in grads}) == 3


def test_sums_are_right_where_two_parameters_have_one_gradient():
    layer = Handed('expanded')
    for _ in range(2):
        layer(torch.zeros(7, 3))
        layer.backward(torch.ones(7, 3))
    for p in layer.parameters(): assert torch.equal(p.grad, torch.full(p.shape, 14.))


def test_a_gradient_of_none_leaves_the_parameter_alone():
    class Fixed(Linear):
        def bwd(self, grad, x, need_inp): return grad@self.w.t(), None, grad.sum(0)
    layer = Fixed(5, 5)
    for model in (Sequential([layer]), Sequential([layer, Tanh(), layer])):
        model.zero_grad()
        model(torch.randn(7, 5))
        model.backward(torch.ones(7, 5))
        assert layer.w.grad is None and layer.b.grad is not None
        before = layer.w.clone()
        Adam(model.parameters(), lr=0.1).step()
        assert torch.equal(layer.w, before)


class AddsInPlace(Module):
    def fwd(self, x): return x.add_(1), None
    def bwd(self, grad, saved, need_inp): return (grad,)


class DoublesInPlace(Module):
    def fwd(self, x): return 2*x, None
    def bwd(self, grad, saved, need_inp): return (grad.mul_(2),)


class SpoilsSaved(Module):
    def fwd(self, x): return x*x, x
    def bwd(self, grad, x, need_inp): return (x.mul_(2*grad),)


@pytest.mark.parametrize('before', [[], [Linear(5, 5), ReLU()], [Tanh()]])
def test_a_layer_that_changes_its_input_in_place_is_named(before):
    x = torch.randn(7, 5)
    for model in (Sequential([*before, AddsInPlace()]),
                  Sequential([*before, Sequential([AddsInPlace()])])):
        for run in (model, model.forward):
            with pytest.raises(RuntimeError, match=r'^AddsInPlace\(\): fwd changed'):
                run(x)
        assert model.stack == []


@pytest.mark.parametrize('layer', [DoublesInPlace(), SpoilsSaved()])
def test_a_layer_that_changes_in_place_what_bwd_gets_is_named(layer):
    for model in (layer, Sequential([Linear(5, 5), layer])):
        model(torch.randn(7, 5))
        with pytest.raises(RuntimeError, match='bwd changed its input in place'):
            model.backward(torch.randn(7, 5))


def test_inference_mode_has_no_count_of_changes():
    with torch.inference_mode():
        assert network()(torch.randn(7, 5)).shape == (7, 3)


def tied(view):
    first = Linear(4, 4)
    second = Linear(4, 4)
    second.w = view(first.w)
    return first, second


@pytest.mark.parametrize('view', [
    torch.t, torch.Tensor.detach, lambda w: w.t().detach(), lambda w: w[:],
    lambda w: w.view(4, 4), lambda w: w.data.mT, lambda w: w[:3], lambda w: w[:,:3]])
def test_a_weight_in_the_memory_of_another_is_refused(view):
    class Both(Module):
        params = ('v', 'w')
        def __init__(self, v, w):
            super().__init__()
            self.v = v
            self.w = w
    first, second = tied(view)
    for model in (Sequential([first, Tanh(), second]), Both(first.w, second.w),
                  Sequential([first, Sequential([second])])):
        with pytest.raises(ValueError, match='lies in the memory of another'):
            model.parameters()


def test_one_tensor_in_two_places_counts_once_and_so_do_parts_of_a_buffer():
    first, second = tied(lambda w: w)
    assert len(Sequential([first, second]).parameters()) == 3
    first, second = tied(lambda w: w.t().clone())
    assert len(Sequential([first, second]).parameters()) == 4
    flat = torch.zeros(32)
    first.w = flat[:16].view(4, 4)
    second.w = flat[16:].view(4, 4)
    assert len(Sequential([first, second]).parameters()) == 4


@pytest.mark.parametrize('w', [nn.Linear(5, 3).weight.t(), nn.Linear(3, 5).weight*2])
def test_a_weight_in_a_graph_of_autograd_is_refused(w):
    layer = Linear(5, 3)
    layer.w = w
    with pytest.raises(ValueError, match='in a graph of autograd; expected detach'):
        Sequential([layer]).parameters()
    layer.w = layer.w.detach().clone()
    assert len(Sequential([layer]).parameters()) == 2


# Casting


class Mixed(Linear):
    "A permutation, a mask and a count beside floats."
    buffers = ('order', 'mask', 'count', 'scale')
    def __init__(self, n):
        super().__init__(n, n)
        self.order = torch.randperm(n)
        self.mask = self.order > 1
        self.count = torch.tensor(2**60 + 1)
        self.scale = torch.ones(n)
    def fwd(self, x): return super().fwd((x*self.scale*self.mask)[:,self.order])
    def bwd(self, grad, x, need_inp):
        d_x, d_w, d_b = super().bwd(grad, x, True)
        return d_x[:,self.order.argsort()]*self.scale*self.mask, d_w, d_b


@pytest.mark.parametrize('dtype', [F64, torch.bfloat16, torch.float16])
def test_only_floats_are_cast(dtype):
    layer = Mixed(5)
    Sequential([layer]).to(dtype)
    found = [t.dtype for t in layer.state_dict().values()]
    assert found == [dtype, dtype, torch.int64, torch.bool, torch.int64, dtype]
    assert layer.count.item() == 2**60 + 1
    assert layer(torch.randn(7, 5, dtype=dtype)).dtype == dtype


def test_a_device_is_asked_of_all_tensors(monkeypatch):
    moved = []
    to = torch.Tensor.to
    def see(t, where):
        moved.append(where)
        return to(t, where)
    layer = Mixed(5)
    monkeypatch.setattr(torch.Tensor, 'to', see)
    for where in ('cpu', torch.device('cpu'), F64): layer.to(where)
    assert moved == ['cpu']*6 + [torch.device('cpu')]*6 + [F64]*3


def test_a_layer_with_integer_buffers_can_be_checked():
    assert list(check_layer(Mixed(5), torch.randn(7, 5))) == ['x', 'w', 'b']


@pytest.mark.parametrize('dtype', [torch.int64, torch.uint8, torch.bool])
def test_floats_are_not_cast_to_integers(dtype):
    layer = Linear(5, 3)
    with pytest.raises(ValueError, match=f'to: dtype is {dtype}, expected one'):
        layer.to(dtype)
    assert layer.w.dtype == torch.float32


# Without a bias


def test_linear_without_a_bias():
    layer = Linear(5, 3, bias=False)
    assert str(layer) == 'Linear(5, 3, bias=False)' and layer.params == ('w',)
    x = torch.randn(7, 5)
    assert torch.equal(layer(x), x@layer.w) and torch.equal(layer.forward(x), x@layer.w)
    grad = torch.randn(7, 3)
    assert_close(layer.backward(grad), grad@layer.w.t())
    assert_close(layer.w.grad, x.t()@grad)
    assert list(layer.state_dict()) == ['w']
    assert list(check_layer(layer, torch.randn(7, 5))) == ['x', 'w']
    assert Linear(5, 3).params == ('w', 'b')


def test_a_network_without_biases_is_that_of_pytorch_and_saved():
    net = nn.Sequential(nn.Linear(5, 4, bias=False), nn.ReLU(), nn.Linear(4, 3))
    model = Sequential([Linear(5, 4, bias=False), ReLU(), Linear(4, 3)])
    weights = [p.detach().t().clone() for p in net.parameters()]
    state = dict(zip(['0.w', '2.w', '2.b'], weights))
    model.load_state_dict(state)
    x = torch.randn(7, 5)
    assert_close(model(x), net(x).detach())
    assert copy.deepcopy(model).to(F64).layers[0].w.dtype == F64
    with pytest.raises(ValueError, match='load_state_dict'):
        Sequential([Linear(5, 4), ReLU(), Linear(4, 3)]).load_state_dict(state)
    groups = decay_groups(model, 0.1)
    assert [len(g['params']) for g in groups] == [2, 1]
    opt = AdamW(decay_groups(model.layers[0], 0.1), lr=0.1) # a part of the layers
    assert [len(g['params']) for g in opt.param_groups] == [1, 0]


def test_a_seed_gives_the_same_weights_without_a_bias():
    def weights(**more):
        return Linear(5, 3, generator=torch.Generator().manual_seed(0), **more).w
    assert torch.equal(weights(), weights(bias=False))


# Slips


@pytest.mark.parametrize('layers', [
    (Linear(3, 4), ReLU()), (Linear(3, 4),), (ReLU,), (None,), (5,),
    ([Linear(3, 4)], ReLU()), (nn.Linear(3, 4),)])
@pytest.mark.parametrize('kind', [Sequential, type('Block', (Sequential,), {})])
def test_layers_that_are_no_list_are_one_clear_line(layers, kind):
    name = kind.__name__
    with pytest.raises(ValueError) as error: kind(*layers)
    assert str(error.value) == (f'{name}: expected one list of layers, as in '
                                f'{name}([Linear(784, 50), ReLU()])')


def test_what_is_no_layer_is_named_in_one_line():
    for part, named in ((ReLU, "<class 'fcnet.layers.ReLU'>"),
                        (nn.Sequential(nn.Tanh()), r'Sequential\( \(0\): Tanh\(\) \)')):
        with pytest.raises(ValueError, match=f'^Sequential: {named} is not a layer'):
            Sequential([Linear(3, 4), part])


@pytest.mark.parametrize('kind', [np.int64, np.int32, np.uint8])
def test_sizes_from_numpy(kind):
    layer = Linear(kind(4), kind(3), std=np.float32(0.1), generator=None)
    assert layer.w.shape == (4, 3) and layer.w.dtype == torch.float32
    assert str(layer) == 'Linear(4, 3)'
    assert Sequential([layer, ReLU()]).forward(torch.ones(2, 4)).shape == (2, 3)
