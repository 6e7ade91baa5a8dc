"Finding a learning rate, clipping gradients, looking at activations."
import inspect
import math
import pickle
from contextlib import contextmanager
from copy import deepcopy
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fcnet.classify import CrossEntropy
from fcnet.data import Data
from fcnet.deep import Residual
from fcnet.diagnose import ActivationStats, ClipGradients, lr_find
from fcnet.init import layer_stats
from fcnet.layers import MSE, Linear, Module, ReLU, Sequential, Tanh
from fcnet.learner import Callback, Learner, Schedule
from fcnet.nn_module import MLP
from fcnet.optim import SGD


def first(data, n=128):
    return Data(*(t[:n] for t in data))

def hand_made(data, *callbacks, lr=0.1, **settings):
    g = torch.Generator().manual_seed(0)
    model = Sequential([Linear(784, 50, generator=g), ReLU(),
                        Linear(50, 10, std=0.02, generator=g)])
    opt = SGD(model.parameters(), lr=lr)
    return Learner(model, data, opt, CrossEntropy(), callbacks=callbacks, generator=g,
                   **settings)

def in_torch(data, *callbacks, net=None, lr=0.1, momentum=0., **settings):
    net = net or MLP([784, 20, 10])
    opt = SGD(net.parameters(), lr=lr, momentum=momentum)
    return Learner(net, data, opt, F.cross_entropy, callbacks=callbacks, **settings)

def defaults(f):
    return {name: p.default for name, p in inspect.signature(f).parameters.items()
            if p.default is not inspect.Parameter.empty}


# ---- clipping

class SeeGradients(Callback):
    def __init__(self): self.seen = []
    def before_step(self, learn):
        grads = [p.grad.flatten() for p in learn.model.parameters()]
        self.seen.append(torch.cat(grads))

@pytest.mark.parametrize('make', [hand_made, in_torch])
def test_clipping_bounds_the_norm_of_all_gradients_together(few, make):
    before = SeeGradients()
    after = SeeGradients()
    make(first(few), before, ClipGradients(0.1), after).fit(2)
    for a, b in zip(before.seen, after.seen, strict=True):
        assert a.norm() > 0.1
        torch.testing.assert_close(b, a*0.1/a.norm(), rtol=1e-4, atol=0)

def test_gradients_below_the_limit_are_not_clipped(few):
    before = SeeGradients()
    after = SeeGradients()
    hand_made(first(few), before, ClipGradients(1e6), after).fit(1)
    for a, b in zip(before.seen, after.seen): assert torch.equal(a, b)

@pytest.mark.parametrize('max_norm', [0, -1, math.nan, math.inf, '1'])
def test_the_limit_must_be_above_0(max_norm):
    words = 'ClipGradients: max_norm is .*expected above 0'
    with pytest.raises(ValueError, match=words):
        ClipGradients(max_norm)


class Edge(Module):
    "A root, whose slope at 0 is infinite, or nan."
    def __init__(self, slope):
        super().__init__()
        self.slope = slope
    def fwd(self, x): return x.abs().sqrt(), x
    def bwd(self, grad, x, need_inp): return (grad + self.slope,)

@pytest.mark.parametrize('slope', [math.inf, -math.inf, math.nan, 1e30])
def test_a_norm_that_is_not_finite_ends_the_run_before_the_step(slope):
    model = Sequential([Linear(3, 2), Edge(slope)]) # of 1e30 the square is infinite
    opt = SGD(model.parameters(), lr=0.1)
    x = torch.randn(20, 3)
    learn = Learner(model, Data(x, x[:,:2], x, x[:,:2]), opt, MSE(), metrics={},
                    callbacks=[ClipGradients(1.)])
    before = deepcopy(model.state_dict())
    words = 'ClipGradients: the norm of the gradients is (inf|nan) in epoch 1, batch 1'
    with pytest.raises(FloatingPointError, match=words): learn.fit(1)
    for name, t in model.state_dict().items(): assert torch.equal(t, before[name])

# ---- lr_find

class Script(nn.Module):
    "A loss with these values, one for each call, whatever the model does."
    def __init__(self, *values):
        super().__init__()
        self.values = list(values)
    def forward(self, scores, targ):
        if not torch.is_grad_enabled(): return scores.sum() # after an epoch
        return scores.sum()*0 + self.values.pop(0)

def scripted(data, *values, bs=16):
    "A learner whose losses are given."
    net = nn.Linear(784, 10)
    opt = SGD(net.parameters(), lr=0.1)
    return Learner(net, data, opt, Script(*values), bs=bs, callbacks=[])

def drawn():
    "Rates and losses of the figure, and where it is marked."
    ax, = plt.gcf().axes
    rates, losses = ax.lines[0].get_data()
    return list(rates), list(losses), list(ax.lines[1].get_xdata())

@pytest.mark.parametrize('wrong', [
    dict(low=0), dict(low=-1), dict(low=2, high=1), dict(low=1, high=1),
    dict(high=math.inf), dict(low=math.nan), dict(n_steps=1), dict(n_steps=2.5)])
def test_lr_find_refuses(few, wrong):
    with pytest.raises(ValueError, match='lr_find: (low|high|n_steps) is .*expected'):
        lr_find(hand_made(first(few)), **wrong)

def test_lr_find_defaults():
    assert defaults(lr_find) == {'low': 1e-4, 'high': 10., 'n_steps': 100}

def test_rates_rise_by_a_constant_factor_from_low_to_high(few):
    suggestion = lr_find(in_torch(first(few)), low=1e-3, high=2e-3, n_steps=5)
    rates, losses, _ = drawn()
    assert rates == pytest.approx([1e-3*2**(i/4) for i in range(5)])
    assert len(losses) == 5 and 1e-3 <= suggestion <= 2e-3

def test_every_group_is_trained_at_the_rates(few):
    net = MLP([784, 20, 10])
    opt = SGD([{'params': p, 'lr': 1.} for p in net.parameters()], lr=1)
    learn = Learner(net, first(few), opt, F.cross_entropy, callbacks=[],
                    generator=torch.Generator().manual_seed(0))
    lr_find(learn, n_steps=20)
    losses = drawn()[1]
    one_group = Learner(net, first(few), SGD(net.parameters(), lr=0), F.cross_entropy,
                        generator=torch.Generator().manual_seed(0))
    lr_find(one_group, n_steps=20)
    assert drawn()[1] == losses

def test_a_fifth_of_each_new_loss_enters_the_smoothed_one(few):
    lr_find(scripted(first(few), 1., 2., 3.), n_steps=3)
    assert drawn()[1] == pytest.approx([1., 1.2, 1.56])

@pytest.mark.parametrize('second, n', [(10.9, 3), (11.1, 2)])
def test_the_trial_stops_above_three_times_the_lowest_loss(few, second, n):
    lr_find(scripted(first(few), 1., second, 1.), n_steps=3)
    assert len(drawn()[1]) == n

def test_the_trial_may_take_several_epochs(few):
    lr_find(scripted(first(few), *[1.]*20), n_steps=20) # of 8 batches each
    assert len(drawn()[1]) == 20

def test_the_suggestion_is_a_third_of_the_last_rate_before_the_loss_turns_up(few):
    learn = in_torch(few)
    suggestion = lr_find(learn, low=1e-3)
    rates, losses, marked = drawn()
    near = [rate for rate, loss in zip(rates, losses) if loss <= 1.1*min(losses)]
    assert suggestion == max(near)/3
    assert min(losses) < losses[0]/1.5 # it fell
    assert losses[-1] > 1.1*min(losses) # and rose
    ax, = plt.gcf().axes
    assert marked == [suggestion, suggestion] and ax.get_xscale() == 'log'
    assert ax.lines[1].get_label() == f'suggested: {suggestion:.2g}'
    assert [ax.get_xlabel(), ax.get_ylabel()] == ['learning rate', 'loss, smoothed']
    assert ax.get_legend() is not None

def test_a_loss_may_be_negative(few):
    learn = in_torch(first(few))
    learn.loss = lambda scores, y: F.cross_entropy(scores, y) - 10
    assert lr_find(learn) == 1e-4 # seen as exploded at once, so never below low

def test_near_is_measured_by_the_size_of_a_negative_loss(few):
    suggestion = lr_find(scripted(first(few), *[-10.]*4), low=1., high=8., n_steps=4)
    assert drawn()[1] == [-10.] # above three times the lowest
    assert suggestion == 1.

def test_a_loss_that_is_never_finite_is_an_error(few):
    with pytest.raises(FloatingPointError, match='not finite at the rate 0.0001'):
        lr_find(scripted(first(few), math.nan))

def test_a_loss_that_stops_being_finite_ends_the_trial(few):
    suggestion = lr_find(scripted(first(few), 1., 1., math.inf), low=3., high=300.,
                         n_steps=3)
    assert drawn()[1] == [1., 1.] and suggestion == pytest.approx(10.)

def snapshot(learn):
    "All that a trial might change: copies of tensors, and the rest as text."
    opt = learn.opt.state_dict()
    tensors = [*learn.model.state_dict().values(), learn.generator.get_state(),
               torch.get_rng_state(), *(p.grad for p in learn.model.parameters()),
               *(t for state in opt['state'].values() for t in state.values())]
    rest = [opt['param_groups'], learn.history, learn.step, learn.n_steps,
            learn.stopped, learn.callbacks, learn.loss,
            [m.training for m in learn.model.modules()]]
    return deepcopy(tensors), str(rest)

def same(a, b):
    for t, u in zip(a[0], b[0], strict=True): assert torch.equal(t, u)
    assert a[1] == b[1]

@pytest.mark.parametrize('more', [[], [nn.Dropout(0.5)]])
def test_lr_find_changes_nothing_however_it_ends(few, more):
    net = nn.Sequential(nn.Linear(784, 10), *more)
    learn = in_torch(first(few), Schedule(), net=net, momentum=0.9, bs=16,
                     generator=torch.Generator().manual_seed(5))
    learn.fit(1)
    net.eval()
    before = snapshot(learn)
    suggestion = lr_find(learn, n_steps=20)
    same(snapshot(learn), before)
    if not more: # dropout draws from the global generator
        assert lr_find(learn, n_steps=20) == suggestion
    learn.loss = lambda *_: 1/0
    before = snapshot(learn)
    with pytest.raises(ZeroDivisionError): lr_find(learn)
    same(snapshot(learn), before)

def test_lr_find_leaves_a_hand_written_learner_alone_if_it_fails(few):
    learn = hand_made(first(few), Schedule())
    learn.fit(1)
    before = deepcopy(learn.state_dict())
    def fails(*_, **__): raise RuntimeError('in the middle of a step')
    learn.model.backward = fails
    with pytest.raises(RuntimeError, match='in the middle'): lr_find(learn)
    del learn.model.backward
    assert learn.loss.stack == []
    for name, t in learn.state_dict().items():
        if name != 'training': assert torch.equal(t, before[name])
    assert learn.state_dict()['training'] == before['training']

def test_lr_find_leaves_nothing_on_the_loss_however_it_ends(few):
    class Interrupted(CrossEntropy):
        def bwd(self, *_): raise KeyboardInterrupt
        def backward(self, *_, **__): raise KeyboardInterrupt # its pass stays
    learn = hand_made(first(few))
    learn.loss = Interrupted()
    with pytest.raises(KeyboardInterrupt): lr_find(learn)
    assert learn.loss.stack == [] and learn.model.stack == []

def test_the_trial_draws_from_a_copy_of_the_learners_generator(few):
    def losses(seed):
        learn = in_torch(first(few), net=MLP([784, 10]), bs=16,
                         generator=torch.Generator().manual_seed(seed))
        lr_find(learn, n_steps=20)
        return drawn()[1]
    first_losses = []
    for seed in (5, 5, 6):
        torch.manual_seed(0)
        first_losses.append(losses(seed))
    assert first_losses[0] == first_losses[1] != first_losses[2]

def test_the_random_numbers_of_a_gpu_are_put_back_as_well(few, monkeypatch):
    forked = []
    @contextmanager
    def fork_rng(devices):
        forked.append(devices)
        yield
    monkeypatch.setattr(torch.random, 'fork_rng', fork_rng)
    learn = hand_made(few)
    lr_find(learn, n_steps=3)
    monkeypatch.setattr(Learner, 'device', torch.device('cuda', 0))
    lr_find(learn, n_steps=3)
    assert forked == [[], [torch.device('cuda', 0)]]

def test_callbacks_take_no_part_in_the_trial(few):
    class Fails(Callback):
        def before_fit(self, learn): raise RuntimeError('not me')
        def wrap_step(self, learn, step): raise RuntimeError('nor me')
    learn = hand_made(first(few), Fails())
    lr_find(learn, n_steps=5)
    assert len(learn.callbacks) == 1


# ---- activations

class SeeBatches(Callback):
    "The last batch."
    def after_batch(self, learn): self.x = learn.x

def numbered_rows(n=100):
    x = torch.arange(float(n))[:,None].expand(n, 6).contiguous()
    return Data(x, torch.zeros(n).long(), torch.ones(9, 6), torch.zeros(9).long())

def test_looking_changes_nothing():
    def weights(*callbacks):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3), nn.ReLU())
        in_torch(numbered_rows(), *callbacks, net=net).fit(2)
        return net.state_dict().values()
    for a, b in zip(weights(), weights(ActivationStats(every=1)), strict=True):
        assert torch.equal(a, b)

@pytest.mark.parametrize('make', [hand_made, in_torch])
def test_the_last_look_agrees_with_a_look_by_hand(few, make):
    look = ActivationStats(every=1, n_rows=16)
    batches = SeeBatches()
    learn = make(first(few), look, batches)
    learn.fit(2)
    assert look.steps == [1, 2, 3, 4] and look.names == ['1 ReLU']
    x = batches.x[:16]
    for layer in learn.model.layers[:2]: x = layer(x)
    x = x.detach()
    torch.testing.assert_close(look.stats[-1], layer_stats([x]))
    assert torch.equal(look.histograms[-1][0], x.histc(40, 0, 10))
    assert len(look.histograms) == len(look.stats) == 4

def test_it_looks_every_so_many_batches_and_counts_on_in_the_next_fit(few):
    look = ActivationStats(every=3)
    learn = hand_made(first(few), look, bs=16)
    learn.fit(1)
    assert look.steps == [3, 6]
    learn.fit(1)
    assert look.steps == [3, 6, 9, 12, 15]

def test_a_plain_sequential_is_looked_at_layer_by_layer_and_drawn(few):
    net = nn.Sequential(nn.Linear(784, 9), nn.Tanh(), nn.Linear(9, 10), nn.ReLU())
    look = ActivationStats(every=1)
    batches = SeeBatches()
    in_torch(first(few), look, batches, net=net).fit(2)
    acts = [net[:2](batches.x).detach(), net(batches.x).detach()]
    assert look.names == ['1 Tanh', '3 ReLU'] and len(look.stats) == 4
    torch.testing.assert_close(look.stats[-1], layer_stats(acts))
    for counts, a in zip(look.histograms[-1], acts, strict=True): # without sign
        assert torch.equal(counts, a.abs().histc(40, 0, 10))
    look.plot()
    *panels, image1, image2 = plt.gcf().axes[:5]
    for j, ax in enumerate(panels):
        lines = torch.stack([torch.tensor(line.get_ydata()) for line in ax.lines])
        expected = torch.stack(look.stats)[:,:,j].T.clone()
        if j == 2: expected[0] = math.nan # a tanh has no dead units
        torch.testing.assert_close(lines, expected, rtol=0, atol=0, equal_nan=True)
        assert [list(line.get_xdata()) for line in ax.lines] == [look.steps]*2
    for i, ax in enumerate((image1, image2)):
        image = torch.as_tensor(ax.images[0].get_array().data)
        expected = torch.stack([h[i] for h in look.histograms]).T.log1p()
        assert torch.equal(image, expected)
        assert ax.images[0].get_extent() == [1, 4, 0, 10]
        assert ax.images[0].origin == 'lower'
        title = ax.get_title() or ax.get_title('left')
        assert title == f'{look.names[i]}: activations'
    legend, = plt.gcf().legends
    assert [text.get_text() for text in legend.get_texts()] == look.names
    assert not plt.gcf().axes[5].axison # nothing where there is no third layer

def test_more_than_three_layers_have_a_panel_each(few):
    layers = [Linear(784, 8), ReLU(), Linear(8, 8), Tanh(), Linear(8, 8), ReLU(),
              Linear(8, 8), ReLU(), Linear(8, 10)]
    model = Sequential(layers)
    look = ActivationStats(every=2)
    opt = SGD(model.parameters(), lr=0.1)
    Learner(model, first(few), opt, CrossEntropy(), callbacks=[look]).fit(2)
    look.plot()
    axes = plt.gcf().axes
    assert [ax.axison for ax in axes] == [True]*3 + [False] + [True]*4
    dead = [line.get_ydata() for line in axes[2].lines]
    assert [math.isnan(values[0]) for values in dead] == [False, True, False, False]

def test_drawing_leaves_the_numbers_alone(few):
    look = ActivationStats(every=1)
    in_torch(first(few), look, net=nn.Sequential(nn.Linear(784, 10), nn.Tanh())).fit(1)
    look.plot()
    assert torch.stack(look.stats).isfinite().all()

class Branches(nn.Module):
    "Has `layers`, which are not a row; one is called twice, and one works in place."
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)])
        self.norm = nn.BatchNorm1d(6)
        self.last = nn.ReLU(inplace=True)
        self.nothing = None
    def acts(self, x):
        first, relu, second = self.layers
        one = relu(first(x))
        two = relu(second(x + one))
        norm = self.norm(two + x)
        return one, two, norm, norm.clamp(min=0)
    def forward(self, x):
        first, relu, second = self.layers
        return self.last(self.norm(relu(second(x + relu(first(x)))) + x))

def test_any_module_is_looked_at_as_it_computes():
    torch.manual_seed(0)
    net = Branches()
    look = ActivationStats(every=1)
    batches = SeeBatches()
    learn = in_torch(numbered_rows(), look, batches, net=net)
    learn.fit(2)
    assert look.names == ['1 ReLU', '1 ReLU', '3 BatchNorm1d', '4 ReLU']
    acts = [a.detach() for a in net.eval().acts(batches.x)]
    torch.testing.assert_close(look.stats[-1], layer_stats(acts))
    look.plot()

def test_nested_hand_written_layers_are_looked_at():
    inner = [Linear(6, 6), ReLU(), Sequential([Linear(6, 6), Tanh()])]
    block = Residual(inner)
    model = Sequential([Linear(6, 6), block, ReLU(), Linear(6, 3)])
    look = ActivationStats(every=1)
    batches = SeeBatches()
    opt = SGD(model.parameters(), lr=0.01)
    learn = Learner(model, numbered_rows(), opt, CrossEntropy(),
                    callbacks=[look, batches])
    learn.fit(1)
    assert look.names == ['1 Residual', '2 ReLU'] # a block counts as one layer
    one = block.forward(model.layers[0].forward(batches.x))
    two = model.layers[2].forward(one)
    torch.testing.assert_close(look.stats[-1], layer_stats([one, two]))

class ByFunctions(nn.Module):
    "Its activation is a function, and a layer that is not called."
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(6, 3)
        self.unused = nn.ReLU()
    def forward(self, x): return self.one(x).relu()

@pytest.mark.parametrize('model', [
    ByFunctions(), nn.Linear(6, 3), nn.Sequential(nn.Linear(6, 3)), Linear(6, 3),
    Sequential([Linear(6, 3)])], ids=lambda m: type(m).__name__)
def test_what_cannot_be_looked_at_is_refused_before_the_fit(model):
    ours = isinstance(model, Module)
    opt = SGD(model.parameters(), lr=0.1)
    loss = CrossEntropy() if ours else F.cross_entropy
    learn = Learner(model, numbered_rows(), opt, loss, callbacks=[ActivationStats()])
    before = deepcopy(learn.state_dict())
    with pytest.raises(ValueError, match='ActivationStats: .* calls no activation'):
        learn.fit(1)
    for name, t in learn.state_dict().items():
        if name != 'training': assert torch.equal(t, before[name])

class Fails(nn.Module):
    "An activation that raises an error in its third look."
    looks = 0
    def forward(self, x):
        if not self.training: self.looks += 1
        if self.looks == 3: raise self.error
        return x.relu()

@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError])
def test_a_look_leaves_nothing_behind_however_it_ends(error):
    net = nn.Sequential(nn.Linear(6, 3), nn.ReLU(), Fails(), nn.Dropout(0.5))
    net[2].error = error
    learn = SimpleNamespace(model=net, x=torch.ones(5, 6),
                            data=SimpleNamespace(x_train=torch.ones(5, 6)))
    look = ActivationStats(every=1)
    net.train()
    look.before_fit(learn)
    look.after_batch(learn)
    with pytest.raises(error): look.after_batch(learn)
    assert all(m.training for m in net.modules())
    assert not any(m._forward_hooks for m in net.modules())

@pytest.mark.parametrize('make', [hand_made, in_torch])
def test_a_learner_that_was_looked_at_can_be_copied_and_pickled(few, make):
    learn = make(first(few), ActivationStats(every=1), ClipGradients(1.))
    learn.generator = torch.Generator()
    learn.fit(1)
    lr_find(learn, n_steps=3)
    other = deepcopy(learn) if make is hand_made else pickle.loads(pickle.dumps(learn))
    other.fit(1)
    assert len(other.history) == 2 and len(learn.history) == 1

def test_a_model_that_takes_another_way_is_not_looked_at():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList([nn.Linear(6, 3), nn.ReLU()])
        def forward(self, x):
            return self.parts[1](self.parts[0](x)) if x.sum() > 9 else x
    look = ActivationStats(every=1)
    learn = SimpleNamespace(model=Sometimes(), x=torch.ones(5, 6),
                            data=SimpleNamespace(x_train=torch.ones(5, 6)))
    look.before_fit(learn)
    look.after_batch(learn)
    learn.x = torch.zeros(5, 6)
    look.after_batch(learn)
    assert look.steps == [1] and len(look.stats) == len(look.histograms) == 1

def test_half_precision_can_be_looked_at():
    look = ActivationStats(every=1)
    net = nn.Sequential(nn.Tanh()).bfloat16()
    x = torch.randn(5, 3).bfloat16()
    learn = SimpleNamespace(model=net, x=x, data=SimpleNamespace(x_train=x))
    look.before_fit(learn)
    look.after_batch(learn)
    assert look.histograms[-1][0].sum() == 15

def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match='plot: steps is 0, expected an integer'):
        ActivationStats().plot()

def test_defaults_and_limits_of_looking():
    assert defaults(ActivationStats) == {'every': 10, 'n_rows': 256}
    for wrong in (dict(every=0), dict(n_rows=0), dict(every=1.5)):
        with pytest.raises(ValueError, match='ActivationStats: .*expected an integer'):
            ActivationStats(**wrong)
