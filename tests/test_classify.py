"Softmax, cross-entropy with its gradient, labels: against PyTorch, in both precisions."
import gc
import math
import weakref

import matplotlib.pyplot as plt
import numpy as np
import pytest
import sympy
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from fcnet.backward import check_grads, linear_grad, relu_grad
from fcnet.classify import (CrossEntropy, OneHotMSE, accuracy, check_labels, confusion,
                            cross_entropy, cross_entropy_grad, log_softmax,
                            show_confusion, softmax)
from fcnet.forward import linear, relu
from fcnet.layers import Linear, Sequential, check_layer

F64 = torch.float64
LABELS = torch.tensor([2, 0, 1, 2, 2])
SMOOTHINGS = [0., 0.1, 0.7, 1.]


# Equal to PyTorch

@pytest.mark.parametrize('dtype, rtol', [(torch.float32, 1e-5), (F64, 1e-12)])
@pytest.mark.parametrize('shape', [(1, 1), (1, 10), (7, 3), (64, 10), (2, 500)])
@pytest.mark.parametrize('size', [1e-3, 1., 30., 1e4, 1e30])
def test_values_and_gradients_equal_pytorchs(dtype, rtol, shape, size):
    tol = dict(rtol=rtol, atol=rtol*min(size, 1)/10)
    scores = (torch.randn(shape, dtype=dtype)*size).requires_grad_()
    labels = torch.randint(0, shape[1], shape[:1])
    assert_close(log_softmax(scores), F.log_softmax(scores, -1), **tol)
    assert_close(softmax(scores), F.softmax(scores, -1), **tol)
    theirs = F.cross_entropy(scores, labels)
    theirs.backward()
    assert_close(cross_entropy(scores, labels), theirs, **tol)
    ours = cross_entropy_grad(scores.detach(), labels)
    assert_close(ours, scores.grad, **tol)
    assert ours.isfinite().all()


@pytest.mark.parametrize('shape', [(4,), (2, 3, 4)])
def test_log_softmax_works_along_the_last_axis(shape):
    scores = torch.randn(shape)
    assert_close(log_softmax(scores), F.log_softmax(scores, -1))
    assert_close(softmax(scores).sum(-1), torch.ones(shape[:-1]))


def test_softmax_by_hand():
    p = softmax(torch.tensor([[2., 1., 0.]]))
    assert_close(p, torch.tensor([[0.665, 0.245, 0.090]]), rtol=0, atol=5e-4)


def test_only_differences_of_scores_matter():
    scores = torch.tensor([[200., 100., 0.], [2., 1., 0.]])
    assert_close(softmax(scores - 2), softmax(scores))
    assert_close(softmax(scores)[0], torch.tensor([1., 0., 0.]))
    assert_close(log_softmax(scores)[0], torch.tensor([0., -100., -200.]))


@pytest.mark.parametrize('dtype, rtol', [(torch.float32, 1e-5), (F64, 1e-12)])
@pytest.mark.parametrize('smoothing', SMOOTHINGS)
def test_label_smoothing_equals_pytorchs(smoothing, dtype, rtol):
    for shape in ((5, 3), (1, 2), (64, 10)):
        scores = (3*torch.randn(shape, dtype=dtype)).requires_grad_()
        labels = torch.randint(0, shape[1], shape[:1])
        theirs = F.cross_entropy(scores, labels, label_smoothing=smoothing)
        theirs.backward()
        ours = cross_entropy(scores.detach(), labels, smoothing)
        assert_close(ours, theirs.detach(), rtol=rtol, atol=0)
        grad = cross_entropy_grad(scores.detach(), labels, smoothing)
        assert_close(grad, scores.grad, rtol=rtol, atol=rtol/10)


WEIGHTS = [[1., 1., 1.], [1., 19., 0.5], [0.1, 0., 3.], [7., 7., 7.]]

@pytest.mark.parametrize('dtype, rtol', [(torch.float32, 1e-5), (F64, 1e-12)])
@pytest.mark.parametrize('smoothing', SMOOTHINGS)
@pytest.mark.parametrize('weight', WEIGHTS, ids=str)
def test_class_weights_equal_pytorchs(weight, smoothing, dtype, rtol):
    weight = torch.tensor(weight, dtype=dtype)
    scores = (3*torch.randn(5, 3, dtype=dtype)).requires_grad_()
    theirs = F.cross_entropy(scores, LABELS, weight, label_smoothing=smoothing)
    theirs.backward()
    s = scores.detach()
    assert_close(cross_entropy(s, LABELS, smoothing, weight), theirs.detach(),
                 rtol=rtol, atol=0)
    assert_close(cross_entropy_grad(s, LABELS, smoothing, weight), scores.grad,
                 rtol=rtol, atol=rtol)
    layer = CrossEntropy(smoothing, weight)
    assert_close(layer(s, LABELS), theirs.detach(), rtol=rtol, atol=0)
    assert_close(layer.backward(2), 2*scores.grad, rtol=rtol, atol=rtol)
    check_layer(layer, torch.randn(5, 3), LABELS)
    def chained(grad, scores, targ):
        return grad*cross_entropy_grad(scores, targ, smoothing, weight), None
    check_grads(lambda s, t: cross_entropy(s, t, smoothing, weight), chained,
                torch.randn(5, 3), LABELS)

def test_class_weights_by_hand():
    scores = torch.tensor([[2., 1.], [0., 0.]])
    weight = torch.tensor([1., 3.])
    by_hand = (math.log(1 + math.exp(-1)) + 3*math.log(2))/4
    found = cross_entropy(scores, torch.tensor([0, 1]), weight=weight)
    assert_close(found, torch.tensor(by_hand))
    grad = cross_entropy_grad(scores, torch.tensor([0, 1]), weight=weight)
    p = 1/(1 + math.exp(1)) # of the wrong class
    assert_close(grad, torch.tensor([[-p, p], [1.5, -1.5]])/4)

def test_a_weight_counts_like_copies_of_its_rows():
    scores = torch.randn(5, 3, dtype=F64)
    rows = torch.tensor([0, 0, 1, 2, 3, 3, 4, 4]) # class 2 twice
    weight = torch.tensor([1., 1., 2.], dtype=F64)
    assert_close(cross_entropy(scores, LABELS, weight=weight),
                 cross_entropy(scores[rows], LABELS[rows]))

@pytest.mark.parametrize('weight', [
    [1, 2, 3], (1., 2., 3.), np.array([1., 2., 3.]), torch.tensor([1, 2, 3]),
    torch.tensor([1., 2., 3.], requires_grad=True)], ids=lambda w: type(w).__name__)
def test_weights_may_be_any_numbers(weight):
    loss = CrossEntropy(weight=weight)
    assert str(loss) == 'CrossEntropy(weight=[1.0, 2.0, 3.0])'
    scores = torch.randn(5, 3)
    value = loss(scores, LABELS)
    assert_close(value, F.cross_entropy(scores, LABELS, torch.tensor([1., 2., 3.])))
    assert value.dtype == torch.float32 and not value.requires_grad
    assert loss.backward().dtype == torch.float32

def test_weights_are_a_copy_and_are_named():
    weight = torch.tensor([1., 2., 3.])
    loss = CrossEntropy(0.1, weight)
    weight[0] = 9
    assert loss.weight[0] == 1 and CrossEntropy().weight is None
    both = CrossEntropy(0.1, [1, 2])
    assert str(both) == 'CrossEntropy(label_smoothing=0.1, weight=[1.0, 2.0])'

@pytest.mark.parametrize('f', [
    cross_entropy, cross_entropy_grad,
    lambda s, t, weight: CrossEntropy(weight=weight)(s, t)])
@pytest.mark.parametrize('shape', [(2,), (4,), (1,)])
def test_weights_of_a_wrong_length_are_refused(f, shape):
    with pytest.raises(ValueError, match=r'weight has shape .*, expected \(3,\)'):
        f(torch.randn(5, 3), LABELS, weight=torch.ones(shape))

@pytest.mark.parametrize('weight', [[1., -1., 1.], [1., math.nan, 1.],
                                    [math.inf, 1., 1.]])
def test_weights_that_are_no_weights_are_refused(weight):
    words = 'CrossEntropy: weight is .*, expected at least 0'
    with pytest.raises(ValueError, match=words): CrossEntropy(weight=weight)

def test_a_batch_without_any_weight_has_no_loss():
    weight = torch.tensor([0., 1., 0.])
    targ = torch.tensor([0, 2])
    assert cross_entropy(torch.randn(2, 3), targ, weight=weight).isnan() # as PyTorch
    assert F.cross_entropy(torch.randn(2, 3), targ, weight).isnan()
    assert CrossEntropy(weight=weight)(torch.randn(2, 3), targ).isnan()

def test_without_smoothing_is_the_default():
    scores = torch.randn(5, 3)
    assert torch.equal(cross_entropy(scores, LABELS, 0.), cross_entropy(scores, LABELS))
    assert torch.equal(cross_entropy_grad(scores, LABELS, 0.),
                       cross_entropy_grad(scores, LABELS))
    assert CrossEntropy().label_smoothing == 0


def test_smoothed_loss_has_its_minimum_at_the_smoothed_label():
    smoothed = 0.9*F.one_hot(LABELS, 3) + 0.1/3
    grad = cross_entropy_grad(smoothed.double().log(), LABELS, 0.1)
    assert_close(grad, torch.zeros(5, 3, dtype=F64), rtol=0, atol=1e-8)


def test_an_impossible_class_costs_nothing_where_it_is_not_the_label():
    scores = torch.tensor([[1., 2., -torch.inf]])
    targ = torch.tensor([0])
    assert_close(cross_entropy(scores, targ), F.cross_entropy(scores, targ))
    expected = torch.tensor([[-0.7310586, 0.7310586, 0.]])
    assert_close(cross_entropy_grad(scores, targ), expected)


def test_no_rows_do_no_harm():
    none = torch.zeros(0, 3)
    labels = torch.zeros(0).long()
    assert cross_entropy_grad(none, labels).shape == (0, 3)
    assert torch.equal(confusion(none, labels), torch.zeros(3, 3).long())


def test_gradient_by_sympy_for_one_example_of_three_classes():
    s = sympy.symbols('s1:4')
    at = (0.5, -1.5, 2.)
    loss = -s[1] + sympy.log(sum(map(sympy.exp, s)))
    expected = [float(sympy.diff(loss, sk).subs(dict(zip(s, at)))) for sk in s]
    ours = cross_entropy_grad(torch.tensor([at], dtype=F64), torch.tensor([1]))
    assert_close(ours[0].tolist(), expected, rtol=1e-12, atol=0)


def test_gradient_by_hand():
    grad = cross_entropy_grad(torch.tensor([[2., 1., 0.]]), torch.tensor([1]))
    by_hand = torch.tensor([[0.665, -0.755, 0.090]])
    assert_close(grad, by_hand, rtol=0, atol=5e-4)


@pytest.mark.parametrize('smoothing', [0., 0.1, 1.])
def test_gradient_by_autograd_and_differences(smoothing):
    def f(scores, targ): return cross_entropy(scores, targ, smoothing)
    def f_grad(grad, scores, targ):
        return grad*cross_entropy_grad(scores, targ, smoothing), None
    check_grads(f, f_grad, torch.randn(5, 3), LABELS)


@pytest.mark.parametrize('fault', [
    lambda s, t: -cross_entropy_grad(s, t), lambda s, t: softmax(s)/len(t),
    lambda s, t: cross_entropy_grad(s, t)*len(t), lambda s, t: 0*s,
    lambda s, t: cross_entropy_grad(s, t.flip(0)),
    lambda s, t: cross_entropy_grad(s, t, 0.1)])
def test_wrong_gradients_are_found(fault):
    labels = torch.tensor([0, 2, 1, 1])
    with pytest.raises(AssertionError, match='s: off by'):
        check_grads(lambda s, t: cross_entropy(s, t),
                    lambda g, s, t: (g*fault(s, t), None), torch.randn(4, 3), labels)


def test_a_gradient_without_the_smoothing_is_found():
    def f(scores, targ): return cross_entropy(scores, targ, 0.1)
    def hard_only(grad, scores, targ):
        return grad*cross_entropy_grad(scores, targ), None
    with pytest.raises(AssertionError, match='scores: off by'):
        check_grads(f, hard_only, torch.randn(5, 3), LABELS)


# Pure functions: PyTorch can differentiate, trace and map them

def loss_of(params, x, y):
    w1, b1, w2, b2 = params
    return cross_entropy(linear(relu(linear(x, w1, b1)), w2, b2), y)


def gradients_by_hand(params, x, y):
    w1, b1, w2, b2 = params
    z = linear(x, w1, b1)
    scores = linear(relu(z), w2, b2)
    d_a, d_w2, d_b2 = linear_grad(cross_entropy_grad(scores, y), relu(z), w2)
    _, d_w1, d_b1 = linear_grad(relu_grad(d_a, z), x, w1)
    return d_w1, d_b1, d_w2, d_b2


@pytest.fixture
def problem():
    params = tuple(torch.randn(shape, dtype=F64)
                   for shape in ((5, 4), (4,), (4, 3), (3,)))
    return params, torch.randn(7, 5, dtype=F64), torch.randint(0, 3, (7,))


@pytest.mark.parametrize('f', [torch.func.grad(loss_of), gradients_by_hand],
                         ids=['grad', 'by_hand'])
def test_vmap_gives_the_gradient_of_each_example(f, problem):
    params, x, y = problem
    each = torch.func.vmap(f, (None, 0, 0))(params, x[:,None], y[:,None])
    loop = [gradients_by_hand(params, x[i:i+1], y[i:i+1]) for i in range(7)]
    for ours, expected in zip(each, zip(*loop), strict=True):
        assert_close(ours, torch.stack(expected), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize('f', [torch.func.grad(loss_of), gradients_by_hand],
                         ids=['grad', 'by_hand'])
@pytest.mark.processes # PyTorch's compiler takes seconds
def test_loss_and_gradient_can_be_compiled(f, problem):
    traced = torch.compile(f, fullgraph=True, backend='aot_eager')
    by_hand = gradients_by_hand(*problem)
    for ours, expected in zip(traced(*problem), by_hand, strict=True):
        assert_close(ours, expected, rtol=1e-12, atol=1e-14)
    torch.compiler.reset()


@pytest.mark.parametrize('smoothing', [0., 0.3])
def test_the_gradient_can_be_differentiated_again(smoothing):
    def f(scores): return cross_entropy_grad(scores, LABELS, smoothing)
    scores = torch.randn(5, 3, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(f, scores)


# The layers

@pytest.mark.parametrize('smoothing', [0., 0.2])
def test_cross_entropy_layer(smoothing):
    loss = CrossEntropy(smoothing)
    scores = torch.randn(5, 3)
    assert_close(loss(scores, LABELS),
                 F.cross_entropy(scores, LABELS, label_smoothing=smoothing))
    once = loss.backward()
    assert_close(once, cross_entropy_grad(scores, LABELS, smoothing))
    loss(scores, LABELS)
    assert_close(loss.backward(0.25), once/4)
    assert list(check_layer(loss, torch.randn(5, 3), LABELS)) == ['x']


def test_one_hot_mse_layer():
    loss = OneHotMSE()
    value = loss(torch.tensor([[2., 0., 1.]]), torch.tensor([2]))
    assert_close(value, torch.tensor(4/3))
    scores = torch.randn(5, 3)
    assert_close(loss(scores, LABELS), F.mse_loss(scores, torch.eye(3)[LABELS]))
    once = loss.backward()
    assert_close(once, 2*(scores - torch.eye(3)[LABELS])/15)
    assert_close(loss.backward(0.25), torch.tensor([[4., 0., 0.]])/3*0.25)
    check_layer(loss, torch.randn(5, 3), LABELS)


def test_names():
    assert str(CrossEntropy()) == 'CrossEntropy()'
    assert str(CrossEntropy(0.2)) == 'CrossEntropy(label_smoothing=0.2)'
    assert str(OneHotMSE()) == 'OneHotMSE()'


@pytest.mark.parametrize('loss', [CrossEntropy(), CrossEntropy(0.1), OneHotMSE()],
                         ids=str)
def test_a_step_by_hand_equals_autograds(loss):
    model = Sequential([Linear(5, 3)]).to(F64)
    x = torch.randn(5, 5, dtype=F64)
    w, b = (p.clone().requires_grad_() for p in model.parameters())
    loss.forward(x@w + b, LABELS).backward()
    loss(model(x), LABELS)
    model.backward(loss.backward(), need_inp=False)
    assert_close(model.layers[0].w.grad, w.grad, rtol=1e-12, atol=1e-14)
    assert_close(model.layers[0].b.grad, b.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize('loss', [CrossEntropy(), CrossEntropy(0.1), OneHotMSE()],
                         ids=str)
def test_a_loss_of_ours_with_an_nn_module_keeps_nothing_alive(loss):
    net = nn.Linear(5, 3)
    out = net(torch.randn(5, 5))
    loss(out, LABELS).backward()
    watch = weakref.ref(out)
    del out
    gc.collect()
    assert watch() is None
    assert loss.stack == []
    assert net.weight.grad is not None


# What is refused

FAULTS = [
    (torch.tensor([0, 1, 2]), r'targ has shape \(3,\), expected \(4,\)'),
    (torch.zeros(4), 'targ is torch.float32, expected torch.int64'),
    (torch.zeros(4, 1).long(), r'targ has shape \(4, 1\), expected \(4,\)'),
    (torch.zeros(4, dtype=torch.int32), 'targ is torch.int32, expected torch.int64')]

USERS = [cross_entropy, cross_entropy_grad, CrossEntropy(), OneHotMSE(), accuracy,
         confusion]


def name_of(f):
    return getattr(f, '__name__', type(f).__name__)


@pytest.mark.parametrize('labels, message', FAULTS)
@pytest.mark.parametrize('f', USERS, ids=name_of)
def test_labels_of_a_wrong_shape_or_type_are_refused(f, labels, message):
    with pytest.raises(ValueError, match=f'{name_of(f)}: {message}'):
        f(torch.randn(4, 3), labels)


@pytest.mark.parametrize('f', USERS, ids=name_of)
def test_scores_of_a_wrong_shape_are_refused(f):
    with pytest.raises(ValueError, match=rf'{name_of(f)}: scores has shape \(3,\), '
                       r'expected \(n, n_classes\)'):
        f(torch.randn(3), torch.tensor([1]))


@pytest.mark.parametrize('wrong', [[0, 1, -1, 2], [0, 3, 1, 2]])
@pytest.mark.parametrize('f', [CrossEntropy(), CrossEntropy(0.1), OneHotMSE(), accuracy,
                               confusion], ids=name_of)
def test_labels_that_are_no_class_are_refused(f, wrong):
    message = (f'{name_of(f)}: targ runs from {min(wrong)} to {max(wrong)}, '
               'expected classes 0 to 2')
    with pytest.raises(ValueError, match=message):
        f(torch.randn(4, 3), torch.tensor(wrong))


def test_check_labels_looks_at_values_only_where_asked_and_on_the_cpu():
    scores = torch.randn(2, 3)
    wrong = torch.tensor([0, 3])
    check_labels('here', scores, wrong, values=False)
    check_labels('here', scores.to('meta'), wrong.to('meta'))
    check_labels('here', scores, torch.tensor([0, 2]))
    with pytest.raises(ValueError, match='here: targ runs from 0 to 3'):
        check_labels('here', scores, wrong)


@pytest.mark.parametrize('bad', [-0.1, 1.1, 7., float('nan')])
def test_label_smoothing_out_of_range_is_refused(bad):
    message = f'label_smoothing is {bad}, expected at least 0 and at most 1'
    with pytest.raises(ValueError, match=f'CrossEntropy: {message}'): CrossEntropy(bad)
    for f in (cross_entropy, cross_entropy_grad):
        with pytest.raises(ValueError, match=f'{f.__name__}: {message}'):
            f(torch.randn(5, 3), LABELS, bad)


# Counting

def test_accuracy():
    four = torch.tensor([[2., 1., 0.], [0., 1., 3.], [0., 1., 4.], [5., 1., 2.]])
    assert accuracy(four, torch.tensor([0, 1, 2, 2])) == 0.5
    assert accuracy(torch.eye(3), torch.tensor([0, 0, 0])) == 1/3
    assert isinstance(accuracy(four, torch.tensor([0, 1, 2, 2])), float)


def test_confusion():
    four = torch.tensor([[2., 1., 0.], [0., 1., 3.], [0., 1., 4.], [5., 1., 2.]])
    counts = confusion(four, torch.tensor([0, 1, 2, 2]))
    assert counts.tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 1]]
    assert counts.dtype == torch.int64
    assert confusion(torch.eye(3)[:1], torch.tensor([0])).shape == (3, 3)


def test_picture_of_confusions():
    # true classes in rows, each number in its place, white on strong colors
    counts = torch.tensor([[5, 9, 0], [1, 6, 5], [0, 2, 7]])
    show_confusion(counts)
    (ax,) = plt.gcf().axes
    drawn = {text.get_position()[::-1]: int(text.get_text()) for text in ax.texts}
    assert drawn == {(i, j): counts[i, j].item() for i in range(3) for j in range(3)}
    off = torch.tensor([[0, 9, 0], [1, 0, 5], [0, 2, 0]])
    assert torch.equal(torch.tensor(ax.images[0].get_array().data), off)
    white = [text.get_position() for text in ax.texts if text.get_color() == 'white']
    assert white == [(1, 0)]
    grey = [text.get_position() for text in ax.texts if text.get_color() == '0.45']
    assert grey == [(0, 0), (1, 1), (2, 2)]
    assert ax.get_xlabel() == 'taken for'
    assert ax.get_ylabel() == 'true class'


def test_picture_of_no_confusions():
    show_confusion(torch.eye(3).long())
    assert len(plt.gca().texts) == 9
