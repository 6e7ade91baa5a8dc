"The network in NumPy beside PyTorch, central differences and numbers worked by hand."
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fcnet.numpy_net import (Params, backprop, check_classes, feedforward, init_params,
                             log_softmax_columns, loss, sigmoid)

@pytest.fixture
def worked():
    "The textbook's example: 2 examples of 3 numbers, 4 hidden units, 5 classes."
    X = np.arange(6.).reshape(3, 2)
    y = np.array([3, 4])
    params = Params(W1=np.tile([1., 2., 3.], (4, 1)), b1=np.ones((4, 1)),
                    W2=np.full((5, 4), 2.), b2=np.full((5, 1), 2.))
    return X, y, params

@pytest.fixture
def drawn():
    "Random numbers of moderate size, all sizes different."
    rng = np.random.default_rng(1)
    X = rng.normal(size=(3, 7))
    y = rng.integers(0, 5, 7)
    sizes = [(4, 3), (4, 1), (5, 4), (5, 1)]
    return X, y, Params(*(rng.normal(size=size) for size in sizes))

def relative(a, b):
    return np.linalg.norm(a-b)/max(np.linalg.norm(a), np.linalg.norm(b))

def by_autograd(X, y, params, reg):
    "Loss and gradients by PyTorch, in rows."
    W1, b1, W2, b2 = [torch.tensor(p, requires_grad=True) for p in params]
    x = torch.tensor(X.T)
    a = torch.sigmoid(x@W1.T + b1[:,0])
    value = F.cross_entropy(a@W2.T + b2[:,0], torch.tensor(y))
    value = value + reg/2*(W1.pow(2).sum() + W2.pow(2).sum())
    value.backward()
    return value.item(), [p.grad.numpy() for p in (W1, b1, W2, b2)]

def by_differences(X, y, params, reg, eps=1e-6):
    "Gradients by central differences."
    grads = []
    for name, p in params._asdict().items():
        slopes = np.zeros_like(p)
        for i in np.ndindex(p.shape):
            step = np.zeros_like(p)
            step[i] = eps
            above = loss(X, y, params._replace(**{name: p + step}), reg)
            below = loss(X, y, params._replace(**{name: p - step}), reg)
            slopes[i] = (above - below)/(2*eps)
        grads.append(slopes)
    return grads

# ---- parameters ----

def test_init_params_shapes_and_scale():
    params = init_params(300, 200, 100, np.random.default_rng(0))
    shapes = [a.shape for a in params]
    assert shapes == [(200, 300), (200, 1), (100, 200), (100, 1)]
    assert params.W1.std() == pytest.approx(300**-0.5, rel=0.02)
    assert params.W2.std() == pytest.approx(0.02, rel=0.02)
    assert abs(params.W1.mean()) < 0.001
    assert abs(params.W2.mean()) < 0.001
    assert not params.b1.any()
    assert not params.b2.any()

@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_init_params_dtype(dtype):
    params = init_params(3, 4, 5, np.random.default_rng(0), dtype)
    assert {a.dtype for a in params} == {np.dtype(dtype)}

def test_init_params_are_float64_unless_told():
    params = init_params(3, 4, 5, np.random.default_rng(0))
    assert {a.dtype for a in params} == {np.dtype(np.float64)}

def test_init_params_are_those_of_the_seed():
    a, b, c = (init_params(3, 4, 5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.W1, b.W1)
    assert not np.array_equal(a.W1, c.W1)

@pytest.mark.parametrize('sizes, name', [((0, 4, 5), 'n_in'), ((3, 0, 5), 'n_hidden'),
                                         ((3, 4, 0), 'n_out')])
def test_init_params_of_size_zero(sizes, name):
    words = f'init_params: {name} is 0, expected an integer, at least 1'
    with pytest.raises(ValueError, match=words):
        init_params(*sizes, np.random.default_rng(0))

def test_init_params_of_size_one():
    params = init_params(1, 1, 1, np.random.default_rng(0))
    assert [a.shape for a in params] == [(1, 1)]*4

# ---- sigmoid and softmax ----

def test_sigmoid_is_pytorchs():
    z = np.random.default_rng(0).normal(size=(5, 7))*10
    np.testing.assert_allclose(sigmoid(z), torch.tensor(z).sigmoid().numpy(),
                               rtol=1e-14)

@pytest.mark.parametrize('z, expected', [(1000., 1), (-1000., 0), (1e300, 1),
                                         (-1e300, 0), (0., 0.5)])
def test_sigmoid_does_not_overflow(z, expected):
    with np.errstate(all='raise', under='ignore'):
        assert sigmoid(np.array(z)) == expected

def test_log_softmax_is_pytorchs():
    z = np.random.default_rng(0).normal(size=(5, 7))*10
    theirs = torch.tensor(z).log_softmax(0).numpy()
    np.testing.assert_allclose(log_softmax_columns(z), theirs, rtol=1e-13, atol=1e-14)

@pytest.mark.parametrize('z', [1000., -1000., 1e300, -1e300])
def test_log_softmax_does_not_overflow(z):
    with np.errstate(all='raise', under='ignore'):
        log_p = log_softmax_columns(np.array([[z], [0.], [z]]))
        assert np.isfinite(log_p).all()
        assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-15)

def test_log_softmax_shifts_each_column_by_its_own_largest_score():
    log_p = log_softmax_columns(np.array([[0., 1e4], [1., 1e4]]))
    assert np.isfinite(log_p).all()
    np.testing.assert_allclose(np.exp(log_p).sum(0), 1)

def test_adding_a_number_to_all_scores_changes_nothing():
    z = np.random.default_rng(2).normal(size=(5, 7))
    np.testing.assert_allclose(log_softmax_columns(z + 123.), log_softmax_columns(z),
                               rtol=1e-10)

# ---- forward ----

def test_feedforward_of_the_worked_example(worked):
    X, y, params = worked
    Z1, A1, Z2, Y_hat = feedforward(X, params)
    np.testing.assert_array_equal(Z1, np.tile([17., 23.], (4, 1)))
    np.testing.assert_allclose(A1, 1/(1 + np.exp(-Z1)), rtol=1e-14)
    np.testing.assert_allclose(Z2, np.tile(2 + 8*A1[0], (5, 1)), rtol=1e-14)
    np.testing.assert_allclose(Y_hat, np.full((5, 2), 0.2), rtol=1e-12)

def test_feedforward_gives_probabilities(drawn):
    X, y, params = drawn
    Y_hat = feedforward(X, params)[3]
    assert Y_hat.shape == (5, 7)
    assert (Y_hat > 0).all()
    np.testing.assert_allclose(Y_hat.sum(0), 1, rtol=1e-14)

def test_feedforward_keeps_float32():
    params = init_params(3, 4, 5, np.random.default_rng(0), np.float32)
    X = np.ones((3, 2), np.float32)
    assert {a.dtype for a in feedforward(X, params)} == {np.dtype(np.float32)}

@pytest.mark.parametrize('shape', [(2, 3), (3,), (3, 2, 1)])
def test_feedforward_of_another_shape(worked, shape):
    params = worked[2]
    words = r'feedforward: X has shape .*, expected \(3, N\)'
    with pytest.raises(ValueError, match=words): feedforward(np.zeros(shape), params)

# ---- loss ----

def test_loss_of_five_equal_classes_is_log_5(worked):
    X, y, params = worked
    value = loss(X, y, params)
    assert type(value) is float
    assert value == pytest.approx(np.log(5), rel=1e-12)

def test_loss_with_a_penalty_by_hand(worked):
    X, y, params = worked
    squares = 4*(1 + 4 + 9) + 20*2**2 # of W1 and of W2; the biases are left out
    assert loss(X, y, params, reg=0.5) == pytest.approx(np.log(5) + 0.25*squares)

def test_loss_is_the_mean_over_the_examples(drawn):
    X, y, params = drawn
    each = [loss(X[:,i:i+1], y[i:i+1], params) for i in range(7)]
    assert loss(X, y, params) == pytest.approx(np.mean(each), rel=1e-12)

def test_loss_is_finite_for_scores_of_a_thousand(worked):
    X, y, params = worked
    steep = params._replace(W2=np.outer([1, -1, 1, -1, 0], np.full(4, 250.)))
    with np.errstate(all='raise', under='ignore'):
        assert np.isfinite(loss(X, y, steep))

@pytest.mark.parametrize('reg', [0., 0.5])
def test_loss_is_pytorchs(drawn, reg):
    theirs, _ = by_autograd(*drawn, reg)
    assert loss(*drawn, reg) == pytest.approx(theirs, rel=1e-12)

@pytest.mark.parametrize('f', [loss, backprop])
@pytest.mark.parametrize('y, words', [
    ([3], r'y has shape \(1,\), expected \(2,\)'),
    ([[3, 4]], r'y has shape \(1, 2\), expected \(2,\)'),
    ([3., 4.], 'y is float64, expected integers'),
    ([True, False], 'y is bool, expected integers'),
    ([-1, 4], 'lowest_y is -1, expected at least 0 and below 5'),
    ([3, 5], 'highest_y is 5, expected at least 0 and below 5')])
def test_labels_that_do_not_fit_are_named(worked, f, y, words):
    X, _, params = worked
    with pytest.raises(ValueError, match=f'{f.__name__}: {words}'):
        f(X, np.array(y), params)

@pytest.mark.parametrize('y', [[0, 4], [4, 0], [0, 0]])
def test_first_and_last_class_are_labels(worked, y):
    X, _, params = worked
    assert np.isfinite(loss(X, np.array(y), params))

@pytest.mark.parametrize('dtype', [np.uint8, np.int32, np.int64])
def test_labels_of_any_integer_type(worked, dtype):
    X, y, params = worked
    assert loss(X, y.astype(dtype), params) == loss(X, y, params)
    for a, b in zip(backprop(X, y.astype(dtype), params), backprop(X, y, params)):
        np.testing.assert_array_equal(a, b)

def test_no_labels_are_no_error():
    check_classes('here', np.zeros(0, int), 5, 0)

# ---- backward ----

@pytest.mark.parametrize('reg', [0., 0.5])
def test_gradients_are_autograds(drawn, reg):
    _, theirs = by_autograd(*drawn, reg)
    for ours, t in zip(backprop(*drawn, reg), theirs, strict=True):
        assert ours.shape == t.shape
        assert relative(ours, t) < 1e-12

@pytest.mark.parametrize('reg', [0., 0.5])
def test_gradients_by_central_differences(drawn, reg):
    for ours, slopes in zip(backprop(*drawn, reg), by_differences(*drawn, reg)):
        assert relative(ours, slopes) < 1e-7

def test_gradients_of_the_worked_example(worked):
    X, y, params = worked
    grads = backprop(X, y, params, reg=0.5)
    _, theirs = by_autograd(X, y, params, 0.5)
    for ours, t in zip(grads, theirs):
        np.testing.assert_allclose(ours, t, rtol=1e-12, atol=1e-14)
    # the data have no part in it: see "A test that cannot see" in the lesson
    np.testing.assert_allclose(grads.W1, 0.5*params.W1, rtol=1e-12)
    np.testing.assert_allclose(grads.b2.ravel(), [0.2, 0.2, 0.2, -0.3, -0.3])

def test_gradients_without_a_penalty_unless_told(drawn):
    for a, b in zip(backprop(*drawn), backprop(*drawn, 0.)):
        np.testing.assert_array_equal(a, b)
    assert loss(*drawn) == loss(*drawn, 0.)

def test_gradients_keep_float32():
    params = init_params(3, 4, 5, np.random.default_rng(0), np.float32)
    grads = backprop(np.ones((3, 2), np.float32), np.array([0, 4]), params, 0.1)
    assert {g.dtype for g in grads} == {np.dtype(np.float32)}

def test_no_argument_is_changed(worked):
    X, y, params = worked
    before = [a.copy() for a in (X, y, *params)]
    backprop(X, y, params, 0.1)
    loss(X, y, params, 0.1)
    for a, b in zip(before, (X, y, *params)): np.testing.assert_array_equal(a, b)

def test_weight_decay_of_pytorch_on_the_weights_is_the_penalty(drawn):
    X, y, params = drawn
    stepped = [p - 0.1*g for p, g in zip(params, backprop(X, y, params, reg=0.5))]
    _, plain = by_autograd(X, y, params, 0.)
    tensors = [torch.tensor(p, requires_grad=True) for p in params]
    for p, g in zip(tensors, plain): p.grad = torch.tensor(g)
    W1, b1, W2, b2 = tensors
    torch.optim.SGD([{'params': [W1, W2], 'weight_decay': 0.5}, {'params': [b1, b2]}],
                    lr=0.1).step()
    for p, t in zip(stepped, tensors): assert relative(p, t.detach().numpy()) < 1e-12

def test_it_learns(few):
    X = few.x_train.numpy().T
    y = few.y_train.numpy()
    rng = np.random.default_rng(0)
    params = init_params(784, 30, 10, rng, np.float32)
    before = loss(X, y, params)
    order = np.concatenate([rng.permutation(640) for _ in range(5)])
    for batch in order.reshape(-1, 32):
        grads = backprop(X[:,batch], y[batch], params)
        params = Params(*(p - 0.5*g for p, g in zip(params, grads)))
    assert loss(X, y, params) < before/4
    scores = feedforward(few.x_valid.numpy().T, params)[2]
    assert (scores.argmax(0) == few.y_valid.numpy()).mean() > 0.75
