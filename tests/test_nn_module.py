"MLP on torch.nn: its layers, its first weights, and that it agrees with our layers."
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fcnet.backward import relative_error
from fcnet.layers import MSE, Linear, ReLU, Sequential
from fcnet.nn_module import MLP


def kinds(net):
    return [type(part).__name__ for part in net.layers]


def test_layers_in_order():
    assert kinds(MLP([7, 5, 4, 3])) == ['Linear', 'ReLU', 'Linear', 'ReLU', 'Linear']
    assert kinds(MLP([7, 3])) == ['Linear']
    assert kinds(MLP([7, 5, 3], dropout=0.5)) == ['Linear', 'ReLU', 'Dropout', 'Linear']
    assert MLP([7, 5, 3], dropout=0.25).layers[2].p == 0.25
    assert kinds(MLP([7, 5, 3], dropout=0.)) == ['Linear', 'ReLU', 'Linear']


def test_sizes_of_weights_and_scores():
    net = MLP([784, 50, 10])
    shapes = [tuple(p.shape) for p in net.parameters()]
    assert shapes == [(50, 784), (50,), (10, 50), (10,)]
    assert MLP([7, 5, 4, 3])(torch.randn(2, 7)).shape == (2, 3)


def test_first_weights():
    net = MLP([784, 300, 200, 100])
    for layer in (net.layers[0], net.layers[2]):
        assert abs(layer.weight.std()/(2/layer.in_features)**0.5 - 1) < 0.03
    assert abs(net.layers[-1].weight.std()/0.02 - 1) < 0.03
    assert abs(MLP([300, 200], out_std=0.5).layers[-1].weight.std()/0.5 - 1) < 0.03
    assert (MLP([5, 3], out_std=0).layers[-1].weight == 0).all()


def test_all_biases_start_at_zero():
    net = MLP([7, 5, 4, 3])
    biases = [p for name, p in net.named_parameters() if name.endswith('bias')]
    assert len(biases) == 3
    assert all((b == 0).all() for b in biases)


def test_a_seed_gives_the_same_weights_again():
    a, b = (MLP([7, 5, 3], generator=torch.Generator().manual_seed(1))
            for _ in range(2))
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q)
    assert not torch.equal(a.layers[0].weight, MLP([7, 5, 3]).layers[0].weight)


@pytest.mark.parametrize('sizes', [[], [784]])
def test_too_few_sizes_are_refused(sizes):
    with pytest.raises(ValueError) as error: MLP(sizes)
    assert str(error.value) == f'MLP: sizes is {sizes}, expected two or more'


@pytest.mark.parametrize('sizes, size', [
    ([5, 0], '0'), ([5, -1, 3], '-1'), ([5, 2.], '2.0'), (['5', 3], "'5'")])
def test_sizes_that_are_no_counts_are_refused(sizes, size):
    with pytest.raises(ValueError) as error: MLP(sizes)
    assert str(error.value) == (f'MLP({sizes}): size is {size}, '
                                'expected an integer, at least 1')


@pytest.mark.parametrize('name, value', [
    ('dropout', -0.1), ('dropout', 1), ('dropout', float('nan')), ('out_std', -1)])
def test_settings_out_of_range_are_refused(name, value):
    message = f'MLP: {name} is {value}, expected at least 0'
    with pytest.raises(ValueError, match=message):
        MLP([7, 5, 3], **{name: value})


@pytest.mark.parametrize('sizes', [[5, 3], [5, 4, 3], [5, 6, 4, 3]])
def test_mlp_and_our_layers_agree(sizes):
    layers = []
    for n_in, n_out in zip(sizes, sizes[1:]): layers += [Linear(n_in, n_out), ReLU()]
    ours = Sequential(layers[:-1]).to(torch.float64)
    net = MLP(sizes, out_std=0.5).double()
    with torch.no_grad():
        for mine, theirs in zip(ours.parameters(), net.parameters(), strict=True):
            theirs += torch.randn_like(theirs)/10
            mine.copy_(theirs.t())
    x = torch.randn(7, 5, dtype=torch.float64)
    targ = torch.randn(7, 3, dtype=torch.float64)
    assert relative_error(ours(x), net(x).detach()) < 1e-12
    loss = MSE()
    loss(ours(x), targ)
    ours.backward(loss.backward())
    F.mse_loss(net(x), targ).backward()
    for mine, theirs in zip(ours.parameters(), net.parameters()):
        assert relative_error(mine.grad.t(), theirs.grad) < 1e-12


def test_mlp_learns_with_pytorchs_optimizer(digits):
    net = MLP([784, 50, 1])
    opt = torch.optim.SGD(net.parameters(), lr=0.003)
    for _ in range(10):
        out = net(digits.x_train[:1000])[:,0]
        loss = F.mse_loss(out, digits.y_train[:1000].float())
        loss.backward()
        opt.step()
        opt.zero_grad()
    assert loss < 8  # a constant 4.5 has 8.4


# What the lesson says about PyTorch

def test_pytorchs_own_first_weights_have_a_sixth_of_kaimings_variance():
    assert abs(nn.Linear(784, 500).weight.var()*3*784 - 1) < 0.02


def test_mse_loss_warns_of_other_shapes_and_broadcasts():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        table = F.mse_loss(torch.tensor([[1.], [3.]]), torch.tensor([1., 3.]))
    assert len(seen) == 1
    assert table == 2
