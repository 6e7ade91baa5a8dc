"Tests of `fcnet.backward`: gradients against references, and a checker that can fail."
import pytest
import torch

from fcnet.backward import (as_double, check_grads, linear_grad, mse_grad, numeric_grad,
                            relative_error, relu_grad)
from fcnet.forward import linear, mse, relu


def doubles(*shape):
    return torch.randn(shape, dtype=torch.float64)


def cube(v):
    return v**3


def cube_grad(grad, v):
    return grad*3*v**2


def half_hidden(v):
    "`v**2`, of whose slope `detach` hides one half from autograd."
    return v*v.detach()


def rejects(message, f, f_grad, *inputs):
    with pytest.raises(AssertionError, match=message):
        check_grads(f, f_grad, *inputs)


# Helpers

def test_relative_error_by_hand():
    g = torch.full((3,), 1e-3, dtype=torch.float64)
    assert relative_error(g, g) == 0
    assert relative_error(g, 0*g) == relative_error(0*g, g) == 1
    assert relative_error(g, -g) == 2
    assert relative_error(0*g, 0*g) == 0
    assert isinstance(relative_error(g, 2*g), float)
    assert relative_error(g, 2*g) == relative_error(2*g, g) == pytest.approx(1/2)


def test_as_double_copies_float_tensors():
    for x in [torch.randn(3), doubles(3), torch.randn(3).requires_grad_()]:
        copy = as_double(x)
        assert copy.dtype == torch.float64 and torch.equal(copy, x.detach().double())
        assert not copy.requires_grad and copy.is_leaf
        copy.zero_()
        assert x.ne(0).all()
    assert as_double(torch.randn(3), requires_grad=True).requires_grad


@pytest.mark.parametrize('value', [3, 'a', None, torch.arange(3), torch.tensor(True)])
def test_as_double_leaves_anything_else(value):
    assert as_double(value, requires_grad=True) is value


# Central differences

def test_numeric_grad_of_a_square():
    x = torch.tensor([[1., 2., -3.]], dtype=torch.float64)
    grad = numeric_grad(lambda v: v.pow(2).sum(), x)
    torch.testing.assert_close(grad, 2*x, rtol=1e-8, atol=0)
    assert x.tolist() == [[1, 2, -3]]


def test_numeric_grad_of_a_single_number():
    point = torch.tensor(1., dtype=torch.float64)
    grad = numeric_grad(torch.exp, point)
    assert grad.shape == () and abs(grad/point.exp() - 1) < 1e-9


@pytest.mark.parametrize('eps, low, high', [(1e-1, 1e-3, 1e-2), (1e-4, 1e-9, 1e-8),
                                            (1e-6, 0, 1e-9), (1e-11, 1e-9, 1)])
def test_numeric_grad_is_best_at_a_step_in_between(eps, low, high):
    point = torch.tensor(1., dtype=torch.float64)
    error = abs(numeric_grad(torch.exp, point, eps)/point.exp() - 1)
    assert low <= error < high


def test_numeric_grad_takes_tensors_that_are_not_contiguous():
    x = doubles(3, 2).t()
    grad = numeric_grad(lambda v: (v**3).sum(), x)
    torch.testing.assert_close(grad, 3*x**2, rtol=1e-7, atol=1e-9)


def test_numeric_grad_steps_in_proportion_to_large_entries():
    x = 1e12*doubles(2, 3)
    grad = numeric_grad(lambda v: (v**2).sum(), x)
    torch.testing.assert_close(grad, 2*x, rtol=1e-7, atol=1e-9)


def test_numeric_grad_steps_where_an_entry_is_zero():
    zeros = torch.zeros(2, dtype=torch.float64)
    grad = numeric_grad(lambda v: 3*v.sum(), zeros)
    assert (grad - 3).abs().max() < 1e-8


def test_numeric_grad_refuses_float32():
    with pytest.raises(ValueError, match='numeric_grad: dtype is torch.float32, '
                                         'expected one of torch.float64'):
        numeric_grad(torch.sum, torch.ones(2))


# The three gradient functions

def test_mse_grad_by_hand():
    out = torch.tensor([3., 5.])
    targ = torch.tensor([5., 4.])
    assert mse_grad(out, targ).tolist() == [-2, 1] # 2*(3-5)/2 and 2*(5-4)/2
    assert out.tolist() == [3, 5] and targ.tolist() == [5, 4]


def test_mse_grad_agrees_with_autograd_and_differences():
    check_grads(mse, lambda grad, out, targ: (grad*mse_grad(out, targ), None),
                torch.randn(5, 3), torch.randn(5, 3))


def test_mse_grad_refuses_to_broadcast():
    with pytest.raises(ValueError, match=r'mse_grad: out has shape \(4, 1\)'):
        mse_grad(torch.ones(4, 1), torch.ones(4))


def test_relu_grad_agrees_with_autograd_and_differences():
    errors = check_grads(relu, relu_grad, torch.randn(5, 3))
    assert list(errors) == ['x']


def test_relu_grad_is_zero_at_the_corner_as_in_pytorch():
    sevens = torch.full((3,), 7.)
    at = torch.tensor([-1., 0., 1.], requires_grad=True)
    assert relu_grad(sevens, at.detach()).tolist() == [0, 0, 7]
    torch.relu(at).backward(sevens)
    assert at.grad.tolist() == [0, 0, 7]


def test_relu_grad_takes_the_output_for_the_input():
    inp = doubles(5, 3)
    grad = doubles(5, 3)
    assert torch.equal(relu_grad(grad, inp), relu_grad(grad, relu(inp)))


def test_relu_grad_leaves_its_arguments_alone():
    grad = torch.ones(3)
    inp = torch.tensor([-1., 0., 1.])
    relu_grad(grad, inp)
    assert grad.tolist() == [1, 1, 1] and inp.tolist() == [-1, 0, 1]


@pytest.mark.parametrize('shape', [(1, 3), (5, 1)])
def test_relu_grad_refuses_to_broadcast(shape):
    with pytest.raises(ValueError, match=r'relu_grad: grad has shape \(5, 3\), inp'):
        relu_grad(torch.randn(5, 3), torch.randn(shape))


def test_linear_grad_by_hand():
    grad = torch.tensor([[-6., 2.], [4., 0.]])
    inp = torch.tensor([[1., 2.], [-1., 4.]])
    w = torch.tensor([[2., 4.], [1., -2.]])
    d_inp, d_w, d_b = linear_grad(grad, inp, w)
    assert d_inp.tolist() == [[-4, -10], [8, 4]]
    assert d_w.tolist() == [[-10, 2], [4, 4]]
    assert d_b.tolist() == [-2, 2]


def test_linear_grad_agrees_with_autograd_and_differences():
    errors = check_grads(linear, lambda grad, x, w, b: linear_grad(grad, x, w),
                         torch.randn(7, 5), torch.randn(5, 3), torch.randn(3))
    assert list(errors) == ['x', 'w', 'b']


def test_linear_grad_leaves_out_the_input_on_request():
    grad, inp, w = doubles(7, 3), doubles(7, 5), doubles(5, 3)
    d_inp, d_w, d_b = linear_grad(grad, inp, w, need_inp=False)
    assert d_inp is None
    _, expected_w, expected_b = linear_grad(grad, inp, w)
    assert torch.equal(d_w, expected_w) and torch.equal(d_b, expected_b)


def test_a_whole_network_agrees_with_autograd(digits):
    x, targ = digits.x_train[:500].double(), digits.y_train[:500,None].double()
    w1, b1, w2, b2 = doubles(784, 50)/28, doubles(50), doubles(50, 1)/5, doubles(1)
    z1 = linear(x, w1, b1)
    a1 = relu(z1)
    out = linear(a1, w2, b2)
    d_a1, d_w2, d_b2 = linear_grad(mse_grad(out, targ), a1, w2)
    d_x, d_w1, d_b1 = linear_grad(relu_grad(d_a1, z1), x, w1)
    leaves = [t.clone().requires_grad_() for t in (x, w1, b1, w2, b2)]
    xp, w1p, b1p, w2p, b2p = leaves
    out = torch.relu(xp@w1p + b1p)@w2p + b2p
    theirs = torch.autograd.grad(torch.nn.functional.mse_loss(out, targ), leaves)
    for a, b in zip((d_x, d_w1, d_b1, d_w2, d_b2), theirs):
        assert relative_error(a, b) < 1e-12


# The checker rejects wrong gradients

@pytest.mark.parametrize('fault', [
    lambda g, v: g, lambda g, v: -relu_grad(g, v), lambda g, v: relu_grad(v, g),
    lambda g, v: g*float('nan'), lambda g, v: (v > 0).double(),
    lambda g, v: g.flip(0)*(v > 0)])
def test_check_grads_rejects_wrong_gradients_of_relu(fault):
    rejects('x: off by', relu, fault, torch.randn(5, 3))


@pytest.mark.parametrize('fault', [
    lambda g, o, t: 0*o, lambda g, o, t: g*2*(o-t)/len(o),
    lambda g, o, t: g*(o-t)/o.numel(), lambda g, o, t: mse_grad(o, t),
    lambda g, o, t: g*mse_grad(t, o)],
    ids=['zero', 'per row', 'half', 'no upstream', 'sign'])
def test_check_grads_rejects_wrong_gradients_of_mse(fault):
    rejects('out: off by', mse, lambda g, o, t: (fault(g, o, t), None),
            torch.randn(5, 3), torch.randn(5, 3))


LINEAR_FAULTS = [
    ('w: off by 2.0e', lambda g, x, w, b: (g@w.t(), -x.t()@g, g.sum(0))),
    ('w: off by', lambda g, x, w, b: (g@w.t(), x.t()@g/7, g.sum(0))),
    ('w: gradient of shape', lambda g, x, w, b: (g@w.t(), g.t()@x, g.sum(0))),
    ('x: gradient of shape', lambda g, x, w, b: (g, x.t()@g, g.sum(0))),
    ('b: gradient of shape', lambda g, x, w, b: (g@w.t(), x.t()@g, g)),
    ('b: off by', lambda g, x, w, b: (g@w.t(), x.t()@g, g.mean(0))),
    ('x: off by 1.0e', lambda g, x, w, b: (0*x, 0*w, 0*b)),
    ('no gradient was given', lambda g, x, w, b: (None, None, None)),
    ('2 gradients for the 3 inputs x, w, b', lambda g, x, w, b: (x, w))]


@pytest.mark.parametrize('message, fault', LINEAR_FAULTS)
def test_check_grads_rejects_wrong_gradients_of_linear(message, fault):
    rejects(message, linear, fault, torch.randn(7, 5), torch.randn(5, 3),
            torch.randn(3))


@pytest.mark.parametrize('message, fault', [
    ('x: off by', lambda g, x, w, b: (g@w, x.t()@g, g.sum(0))),
    ('w: off by', lambda g, x, w, b: (g@w.t(), g.t()@x, g.sum(0)))])
def test_check_grads_rejects_missing_transposes_that_fit(message, fault):
    rejects(message, linear, fault, torch.randn(7, 5), torch.randn(5, 5),
            torch.randn(5))


def test_check_grads_names_both_shapes():
    rejects(r'v: gradient of shape \(2, 3\) for \(3, 2\)', cube,
            lambda g, v: cube_grad(g, v).t(), torch.randn(3, 2))


def test_check_grads_sees_small_mistakes():
    rejects('v: off by', cube, lambda g, v: cube_grad(g, v)*(1 + 1e-7),
            torch.randn(5, 3))


def test_check_grads_listens_to_autograd_and_to_differences():
    for fault in (lambda g, v: g*v, lambda g, v: g*2*v):
        rejects('v: off by', half_hidden, fault, torch.randn(5, 3))
    rejects(r'v: off by 0.0e\+00 \(autograd\), 5.0e-01 \(central differences\)',
            half_hidden, lambda g, v: g*v, torch.randn(3))


def test_check_grads_draws_an_upstream_gradient_of_both_signs():
    rejects('v: off by', lambda v: v + 1, lambda g, v: g.abs(), torch.randn(3))
    rejects('v: off by', lambda v: v - v.mean(1, keepdim=True), lambda g, v: 0*g,
            torch.randn(5, 3))


# The checker and its arguments

def test_check_grads_gives_the_error_against_autograd_first():
    errors = check_grads(cube, cube_grad, torch.randn(3))
    assert errors['v'][0] < 1e-13 < errors['v'][1] < 1e-7


def test_check_grads_takes_other_functions():
    def sigmoid_grad(grad, inp):
        return grad*inp.sigmoid()*(1 - inp.sigmoid())
    assert check_grads(torch.sigmoid, sigmoid_grad, torch.randn(5, 3))


def test_check_grads_is_not_fooled_by_writing_into_the_arguments():
    rejects('v: off by', cube, lambda g, v: g.zero_(), torch.randn(5, 3))
    rejects('v: off by', cube, lambda g, v: 3*g*v.mul_(v + 1), torch.randn(5, 3))


def test_check_grads_leaves_its_inputs_alone():
    x = doubles(3, 2)
    before = x.clone()
    check_grads(cube, lambda g, v: g.mul_(3*v.mul_(v)), x)
    assert torch.equal(x, before)


def test_check_grads_leaves_leaves_and_random_numbers_alone():
    leaf = torch.randn(3).requires_grad_()
    before = torch.get_rng_state()
    check_grads(lambda v, k: v*k, lambda g, v, k: (g*k, None), leaf, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert leaf.grad is None


def test_check_grads_takes_integer_inputs():
    def chosen_grad(g, v, k):
        return torch.zeros_like(v).index_add(0, k, 2*v[k]*g), None
    errors = check_grads(lambda v, k: v[k]**2, chosen_grad, torch.randn(3),
                         torch.tensor([0, 2]))
    assert list(errors) == ['v']


def test_check_grads_takes_inputs_that_play_no_part():
    errors = check_grads(lambda v, k: 3*v, lambda g, v, k: (3*g, 0*k), torch.randn(3),
                         torch.randn(2))
    assert errors['k'] == (0, 0)


def test_check_grads_numbers_arguments_without_names():
    errors = check_grads(lambda *a: a[0]*a[1], lambda g, a, b: (g*b, g*a),
                         torch.randn(3), torch.randn(3))
    assert list(errors) == ['a', 'input 1']
    errors = check_grads(torch.exp, lambda g, v: g*v.exp(), torch.randn(3))
    assert list(errors) == ['input 0']
    rejects('input 0: off', torch.exp, lambda g, v: g*v, torch.randn(3))


def test_check_grads_names_only_the_arguments_it_was_given():
    def power(v, k=3):
        return v**k
    assert list(check_grads(power, cube_grad, torch.randn(3))) == ['v']
    rejects('2 gradients for the 1 inputs v$', power, lambda g, v: (g, g),
            torch.randn(3))
