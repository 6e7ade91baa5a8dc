"Tests of `fcnet.init`: three rules to draw weights, and statistics of activations."
import numpy as np
import pytest
import torch

from fcnet.init import kaiming_normal, layer_stats, lecun_normal, xavier_normal

RULES = {lecun_normal: lambda n_in, n_out: 1/n_in,
         xavier_normal: lambda n_in, n_out: 2/(n_in + n_out),
         kaiming_normal: lambda n_in, n_out: 2/n_in}


@pytest.mark.parametrize('init', RULES)
@pytest.mark.parametrize('n_in, n_out', [(784, 300), (300, 784)])
def test_weights_have_mean_zero_and_the_variance_of_the_rule(init, n_in, n_out):
    w = init(n_in, n_out)
    assert w.shape == (n_in, n_out) and w.dtype == torch.float32
    assert abs(w.mean()/w.std()) < 0.01
    assert abs(w.var()/RULES[init](n_in, n_out) - 1) < 0.02


@pytest.mark.parametrize('init', RULES)
def test_weights_are_normal(init):
    w = init(400, 400)
    assert abs((w/w.std()).pow(4).mean() - 3) < 0.1 # 1.8 if they were uniform


@pytest.mark.parametrize('init', RULES)
def test_a_generator_makes_the_draw_repeatable(init):
    before = torch.get_rng_state()
    first = init(7, 3, torch.Generator().manual_seed(5))
    second = init(7, 3, generator=torch.Generator().manual_seed(5))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before) # the global one is left alone
    assert not torch.equal(init(7, 3), init(7, 3))


def test_lecun_keeps_the_variance_through_a_product(digits):
    sums = digits.x_train[:10000]@lecun_normal(784, 500)
    assert abs(sums.mean()) < 0.1 and abs(sums.std() - 1) < 0.1


def test_kaiming_keeps_the_mean_square_through_product_and_relu(digits):
    x = digits.x_train[:10000]
    squares = []
    for seed in range(12):
        w = kaiming_normal(784, 50, torch.Generator().manual_seed(seed))
        squares.append((x@w).clamp_min(0).pow(2).mean())
    assert abs(torch.stack(squares).mean()/x.pow(2).mean() - 1) < 0.1


def test_xavier_is_a_compromise_on_the_way_back():
    grad = torch.randn(2000, 50)
    back = {init: (grad@init(800, 50).t()).std().item() for init in RULES}
    assert back[lecun_normal] < back[xavier_normal] and max(back.values()) < 1/2


def test_rules_agree_with_pytorch():
    theirs = torch.nn.init.xavier_normal_(torch.empty(300, 700)).std()
    assert abs(xavier_normal(300, 700).std()/theirs - 1) < 0.01
    theirs = torch.nn.init.kaiming_normal_(torch.empty(700, 300), nonlinearity='relu')
    assert abs(kaiming_normal(300, 700).std()/theirs.std() - 1) < 0.01


def test_layer_stats_by_hand():
    acts = torch.tensor([[1., 0., -2.], [3., 0., 4.]])
    stats = layer_stats([acts])
    assert stats.shape == (1, 3) and stats[0, 0] == 1
    torch.testing.assert_close(stats[0, 1]**2, torch.tensor((0+1+9+4+1+9)/5))
    torch.testing.assert_close(stats[0, 2], torch.tensor(1/3))


def test_a_unit_is_dead_if_it_is_above_zero_for_no_row():
    h = torch.tensor([[1., -1., 0., .3], [2., 1., -2., 1.], [4., 5., 0., .2]])
    dead = layer_stats([h, h[:2, :2]])[:, 2]
    torch.testing.assert_close(dead, torch.tensor([0.25, 0.]))
    assert layer_stats([torch.zeros(2, 5)])[0, 2] == 1


def test_layer_stats_agree_with_numpy():
    acts = [torch.randn(n, 4, dtype=torch.float64).relu() for n in (3, 50)]
    expected = [[a.mean(), a.std(ddof=1), (a <= 0).all(0).mean()]
                for a in (t.numpy() for t in acts)]
    assert layer_stats(acts).dtype == torch.float64
    np.testing.assert_allclose(layer_stats(acts), expected, rtol=1e-12)


def test_layer_stats_refuses_an_empty_list():
    with pytest.raises(ValueError, match='layer_stats: n_layers is 0'):
        layer_stats([])
