"PCA and the gradient of the input."
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fcnet.classify import CrossEntropy
from fcnet.deep import BatchNorm, Residual
from fcnet.interpret import input_grad, pca
from fcnet.layers import Linear, ReLU, Sequential, Tanh
from fcnet.nn_module import MLP
from fcnet.regularize import Dropout

FOUR = torch.tensor([[3., 1.], [1., 3.], [-1., -3.], [-3., -1.]])

def points():
    "40 points in 6 dimensions, in float64, far from 0."
    square = torch.randn(6, 6, dtype=torch.float64)
    return torch.randn(40, 6, dtype=torch.float64)@square + 5

def model_and_batch():
    "A float64 model whose layers behave differently in training, and a batch."
    g = torch.Generator().manual_seed(1)
    model = Sequential([Linear(7, 6, generator=g), BatchNorm(6), Tanh(), Dropout(0.5),
                        Linear(6, 4, generator=g)]).to(torch.float64)
    x = torch.randn(5, 7, generator=g).double()
    targ = torch.tensor([3, 0, 2, 2, 1])
    return model, x, targ

class TestPca:
    def test_four_points_by_hand(self):
        coords, v, share = pca(FOUR)
        torch.testing.assert_close(share, torch.tensor([0.8, 0.2]))
        torch.testing.assert_close(v.abs(), torch.full((2, 2), 0.5**0.5))
        torch.testing.assert_close(coords**2, torch.tensor([[8., 2.]]).expand(4, 2))

    def test_is_taken_around_the_mean(self):
        coords, v, share = pca(FOUR)
        moved_coords, moved_v, moved_share = pca(FOUR + 7)
        torch.testing.assert_close(moved_share, share)
        torch.testing.assert_close(moved_v.abs(), v.abs())
        torch.testing.assert_close(moved_coords**2, coords**2)

    @pytest.mark.parametrize('k', [1, 3, 6])
    def test_eigenvectors_of_the_covariance(self, k):
        x = points()
        coords, v, share = pca(x, k)
        values, vectors = np.linalg.eigh(np.cov(x.T.numpy()))
        values = values[::-1]
        vectors = vectors[:,::-1]
        np.testing.assert_allclose(share, values[:k]/values.sum(), rtol=1e-9)
        np.testing.assert_allclose(v.abs().numpy(), abs(vectors[:,:k]), rtol=1e-6,
                                   atol=1e-9)

    def test_coordinates_are_along_the_directions(self):
        x = points()
        coords, v, _ = pca(x, 3)
        np.testing.assert_allclose(coords, (x - x.mean(0))@v, rtol=1e-9, atol=1e-12)

    def test_keeps_two_directions_by_default(self):
        coords, v, share = pca(points())
        assert coords.shape == (40, 2)
        assert v.shape == (6, 2)
        assert share.shape == (2,)

    def test_shares_of_all_directions_add_up_to_one(self):
        _, _, share = pca(points(), 6)
        assert abs(share.sum() - 1) < 1e-12

    def test_as_many_directions_as_rows(self):
        coords, v, share = pca(points()[:3], 3)
        assert (coords.shape, v.shape, share.shape) == ((3, 3), (6, 3), (3,))

    @pytest.mark.parametrize('k', [0, -1, 7])
    def test_rejects_a_number_of_directions_that_are_not_there(self, k):
        with pytest.raises(ValueError, match=f'pca: k is {k}, expected at least 1 and'):
            pca(points(), k)

    def test_rejects_more_directions_than_rows(self):
        with pytest.raises(ValueError, match='pca: k is 4, expected .* at most 3'):
            pca(points()[:3], 4)

    def test_rejects_a_single_row(self):
        with pytest.raises(ValueError, match=r'pca: x has shape \(6,\)'):
            pca(points()[0], 1)

    def test_rejects_integers(self):
        with pytest.raises(ValueError, match='pca: x is torch.int64, expected floats'):
            pca(points().long(), 1)

class TestInputGrad:
    def test_is_the_gradient_in_evaluation_mode(self):
        model, x, targ = model_and_batch()
        leaf = x.clone().requires_grad_()
        # written out: a fresh BatchNorm only divides by sqrt(1 + eps), no dropout
        hidden = (leaf@model.layers[0].w/(1 + 1e-5)**0.5).tanh()
        F.cross_entropy(hidden@model.layers[-1].w, targ).backward()
        grad = input_grad(model, CrossEntropy(), x, targ)
        torch.testing.assert_close(grad, leaf.grad, rtol=1e-9, atol=1e-15)

    def test_through_a_residual_block(self):
        block = Residual([Linear(4, 4), ReLU()])
        model = Sequential([block, Linear(4, 3)]).to(torch.float64)
        x = torch.randn(6, 4, dtype=torch.float64)
        targ = torch.tensor([0, 1, 2, 0, 1, 2])
        leaf = x.clone().requires_grad_()
        w = block.layers[0].w
        scores = (leaf + (leaf@w).relu())@model.layers[1].w
        F.cross_entropy(scores, targ).backward()
        grad = input_grad(model, CrossEntropy(), x, targ)
        torch.testing.assert_close(grad, leaf.grad, rtol=1e-9, atol=1e-15)

    def test_uses_the_loss_that_it_gets(self):
        model, x, targ = model_and_batch()
        leaf = x.clone().requires_grad_()
        scores = model.eval()(leaf)
        F.cross_entropy(scores, targ, label_smoothing=0.3).backward()
        grad = input_grad(model, CrossEntropy(label_smoothing=0.3), x, targ)
        torch.testing.assert_close(grad, leaf.grad, rtol=1e-9, atol=1e-15)

    def test_leaves_no_gradients_in_the_model(self):
        model, x, targ = model_and_batch()
        input_grad(model, CrossEntropy(), x, targ)
        assert all(p.grad is None for p in model.parameters())

    def test_leaves_mode_and_statistics_of_the_model(self):
        model, x, targ = model_and_batch()
        input_grad(model, CrossEntropy(), x, targ)
        assert model.training and all(layer.training for layer in model.layers)
        assert (model.layers[1].mean == 0).all()

    def test_does_not_disturb_a_pass_that_is_under_way(self):
        model, x, targ = model_and_batch()
        model.eval()
        loss = CrossEntropy()
        value = loss(model(x), targ)
        expected = input_grad(model, CrossEntropy(), x, targ)
        input_grad(model, loss, x + 1, targ)
        assert value.isfinite()
        grad = model.backward(loss.backward())
        torch.testing.assert_close(grad, expected, rtol=1e-12, atol=0)

    def test_works_under_no_grad(self):
        model, x, targ = model_and_batch()
        expected = input_grad(model, CrossEntropy(), x, targ)
        with torch.no_grad():
            grad = input_grad(model, CrossEntropy(), x, targ)
        torch.testing.assert_close(grad, expected, rtol=0, atol=0)

    def test_rejects_a_module_of_pytorch(self):
        _, x, targ = model_and_batch()
        with pytest.raises(ValueError, match='model is a MLP, expected a hand-written'):
            input_grad(MLP([7, 4]), CrossEntropy(), x, targ)
