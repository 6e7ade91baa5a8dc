"Tests of `fcnet.forward` against NumPy in float64; all sizes differ."
import numpy as np
import pytest
import torch

from fcnet.forward import check_same, linear, mse, relu


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_linear_agrees_with_numpy(rng):
    x = rng.normal(size=(7, 5))
    w = rng.normal(size=(5, 3))
    b = rng.normal(size=3)
    ours = linear(*[torch.tensor(v) for v in (x, w, b)])
    expected = np.einsum('ni,ij->nj', x, w) + b
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_linear_by_hand():
    x = torch.tensor([[1., 2.], [3., 4.], [5., 6.]])
    w = torch.tensor([[10.], [1.]])
    b = torch.tensor([0.5])
    assert linear(x, w, b).tolist() == [[12.5], [34.5], [56.5]]
    assert b == 0.5


def test_linear_treats_every_row_by_itself():
    x = torch.randn(7, 5, dtype=torch.float64)
    w = torch.randn(5, 3, dtype=torch.float64)
    b = torch.ones(3, dtype=torch.float64)
    rows = torch.cat([linear(row[None], w, b) for row in x])
    torch.testing.assert_close(linear(x, w, b), rows, rtol=1e-12, atol=1e-12)


def test_relu_agrees_with_numpy():
    x = torch.randn(7, 5, dtype=torch.float64)
    kept = x.clone()
    assert np.array_equal(relu(x), np.maximum(x.numpy(), 0))
    assert torch.equal(x, kept)
    assert relu(torch.tensor([-2., -0.5, 0., 1.5])).tolist() == [0, 0, 0, 1.5]


def test_relu_does_not_cover_up_nan():
    assert relu(torch.tensor([float('nan')])).isnan().all()


def test_mse_agrees_with_numpy(rng):
    out = rng.normal(size=(7, 3))
    targ = rng.normal(size=(7, 3))
    ours = mse(torch.tensor(out), torch.tensor(targ))
    assert ours.shape == ()
    np.testing.assert_allclose(ours, ((out - targ)**2).sum()/21, rtol=1e-12)
    assert mse(torch.ones(1, 1), torch.zeros(1, 1)) == 1


@pytest.mark.parametrize('a, b', [((5, 5), (5,)), ((5, 1), (1, 5)), ((1,), ()),
                                  ((4, 3), (4, 1)), ((50, 1), (50,))])
def test_mse_refuses_to_broadcast(a, b):
    with pytest.raises(ValueError) as e:
        mse(torch.ones(a), torch.ones(b))
    assert str(e.value) == f'mse: out has shape {a}, targ has {b}; expected the same'


def test_mse_refuses_two_dtypes():
    with pytest.raises(ValueError, match='out has dtype torch.float32, '
                                         'targ has torch.float64; expected the same'):
        mse(torch.ones(3), torch.ones(3).double())


def test_check_same_compares_all_tensors_with_the_first():
    a = torch.ones(3, 2)
    assert check_same('here', a=a, b=a + 1, c=a - 1) is None
    with pytest.raises(ValueError, match=r'here: a has shape \(3, 2\), c has \(2, 3\)'):
        check_same('here', a=a, b=a, c=a.t())
    with pytest.raises(ValueError, match='here: a has dtype torch.float32, b has'):
        check_same('here', a=a, b=a.long(), c=a)
