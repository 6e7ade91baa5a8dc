"Dropout, max-norm, early stopping, averaged weights: edge cases, references, resuming."
import json
import math
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fcnet.checkpoint import Checkpoint, load
from fcnet.classify import CrossEntropy
from fcnet.data import Data
from fcnet.layers import Linear, ReLU, Sequential, check_layer
from fcnet.learner import Callback, Learner, Schedule
from fcnet.nn_module import MLP
from fcnet.optim import SGD, Adam, decay_groups
from fcnet.regularize import EMA, Dropout, EarlyStopping, MaxNorm

NAN = float('nan')

def first(data, n):
    "The first `n` training digits, and 100 validation digits."
    return Data(*(t[:n] for t in data[:2]), *(t[:100] for t in data[2:]))

def by_hand():
    return Sequential([Linear(784, 5), ReLU(), Linear(5, 10)])

def by_torch():
    return nn.Sequential(nn.Linear(784, 5), nn.BatchNorm1d(5), nn.ReLU(),
                         nn.Linear(5, 10))

def make_learner(make, data, *callbacks, order=0, lr=0.1, momentum=0.5):
    "A learner of a small model; `make` is `by_hand` or `by_torch`."
    model = make()
    loss = CrossEntropy() if make is by_hand else F.cross_entropy
    opt = SGD(model.parameters(), lr=lr, momentum=momentum)
    g = torch.Generator().manual_seed(order)
    return Learner(model, first(data, 128), opt, loss, callbacks=callbacks, generator=g)

both_kinds = pytest.mark.parametrize('make', [by_hand, by_torch])

def same(a, b):
    "Whether two dicts have the same names and equal tensors, bit for bit."
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)

class AfterEachEpoch(Callback):
    "Copies of the model after every epoch."
    def __init__(self): self.models = []
    def after_epoch(self, learn): self.models.append(deepcopy(learn.model.state_dict()))

class AfterEachStep(Callback):
    "Copies of the model after every step."
    def __init__(self): self.models = []
    def after_batch(self, learn): self.models.append(deepcopy(learn.model.state_dict()))

class AtTheEnd(Callback):
    "A copy of the model before later callbacks replace it."
    def after_fit(self, learn): self.model = deepcopy(learn.model.state_dict())

class Scripted(Callback):
    "Validation loss and accuracy as we want them."
    def __init__(self, values): self.values = values
    def after_epoch(self, learn):
        value = self.values[learn.epoch-1]
        learn.history[-1].update(valid_loss=value, valid_accuracy=value)

# ---- Dropout

class SameMask(Dropout):
    "Draws the same mask each time, so that slopes can be measured."
    def fwd(self, x):
        self.generator = torch.Generator().manual_seed(1)
        return super().fwd(x)

def test_dropout_is_that_of_pytorch_for_the_same_mask():
    x = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(7, 5, dtype=torch.float64)
    theirs = F.dropout(x, 0.3)
    theirs.backward(grad)
    mask = (theirs != 0).double()/0.7
    torch.testing.assert_close(theirs, x*mask, rtol=1e-12, atol=0)
    (ours,) = Dropout(0.3).bwd(grad, mask, True)
    torch.testing.assert_close(ours, x.grad, rtol=1e-12, atol=0)

@pytest.mark.parametrize('p', [0.1, 0.5, 0.8])
def test_dropout_drops_the_share_p_and_keeps_the_mean(p):
    drop = Dropout(p, torch.Generator().manual_seed(0))
    out = drop(torch.ones(1000, 100))
    assert abs((out == 0).float().mean() - p) < 0.01
    assert abs(out.mean() - 1) < 0.02
    torch.testing.assert_close(out.unique(), torch.tensor([0, 1/(1-p)]))
    assert torch.equal(drop.backward(torch.ones(1000, 100)), out)

def test_dropout_draws_a_new_mask_for_every_call_and_row():
    drop = Dropout(0.5)
    one = drop.forward(torch.ones(2, 100))
    two = drop.forward(torch.ones(2, 100))
    assert not torch.equal(one, two) and not torch.equal(one[0], one[1])

def test_dropout_does_nothing_in_evaluation_mode():
    drop = Dropout(0.5).eval()
    ones = torch.ones(2, 2)
    fives = torch.full((2, 2), 5.)
    assert torch.equal(drop(ones), ones)
    assert torch.equal(drop.backward(fives), fives)

def test_dropout_of_nothing_draws_no_random_numbers():
    before = torch.get_rng_state()
    ones = torch.ones(9, 9)
    assert torch.equal(Dropout(0.).forward(ones), ones)
    assert torch.equal(torch.get_rng_state(), before)

def test_dropout_draws_from_its_generator_alone():
    before = torch.get_rng_state()
    out = [Dropout(0.5, torch.Generator().manual_seed(3)).forward(torch.ones(9, 9))
           for _ in range(2)]
    assert torch.equal(*out)
    assert torch.equal(torch.get_rng_state(), before)

def test_dropout_without_a_generator_draws_from_torch():
    torch.manual_seed(5)
    one = Dropout(0.5).forward(torch.ones(9, 9))
    torch.manual_seed(5)
    assert torch.equal(Dropout(0.5).forward(torch.ones(9, 9)), one)

def test_dropout_keeps_double_precision():
    largest = Dropout(0.3).forward(torch.ones(50, dtype=torch.float64)).max()
    assert largest.item() == 1/(1-0.3)

def test_dropout_gradient():
    check_layer(SameMask(0.3), torch.randn(7, 5))
    check_layer(SameMask(0.3).eval(), torch.randn(7, 5))

class NoMask(SameMask):
    def bwd(self, grad, mask, need_inp): return (grad,)

class UnscaledMask(SameMask):
    def bwd(self, grad, mask, need_inp): return (grad*(mask > 0),)

@pytest.mark.parametrize('fault', [NoMask, UnscaledMask])
def test_check_layer_finds_a_wrong_dropout_gradient(fault):
    with pytest.raises(AssertionError, match='x: off by'):
        check_layer(fault(0.3), torch.randn(7, 5))

@pytest.mark.parametrize('p', [-0.1, 1., NAN])
def test_dropout_refuses_a_share_outside_0_to_1(p):
    with pytest.raises(ValueError, match='Dropout: p is .*, expected'): Dropout(p)

def test_dropout_default_and_repr():
    assert repr(Dropout()) == 'Dropout(0.5)'

# ---- MaxNorm

def test_max_norm_scales_longer_vectors_alone():
    w = torch.randn(7, 5)
    before = w.clone()
    norms = before.norm(dim=0)
    limit = norms.median().item()
    MaxNorm(limit).shrink(w, dim=0)
    torch.testing.assert_close(w.norm(dim=0), norms.clamp(max=limit))
    torch.testing.assert_close(w/w.norm(dim=0), before/norms)
    short = norms < limit
    assert torch.equal(w[:,short], before[:,short])

def test_max_norm_leaves_zeros_alone():
    w = torch.zeros(4, 3)
    MaxNorm(1.).shrink(w, dim=0)
    assert torch.equal(w, torch.zeros(4, 3))

def test_max_norm_does_the_same_to_both_kinds_of_model(digits):
    ours = by_hand()
    net = MLP([784, 5, 10], out_std=0.5)
    with torch.no_grad():
        for p, q in zip(net.parameters(), ours.parameters()): p.copy_(q.t())
    for model, loss in ((ours, CrossEntropy()), (net, F.cross_entropy)):
        opt = SGD(model.parameters(), lr=0.5)
        Learner(model, first(digits, 64), opt, loss, callbacks=[MaxNorm(1.2)]).fit(1)
    for p, q in zip(net.parameters(), ours.parameters()):
        torch.testing.assert_close(p.detach(), q.t())
    norms = torch.cat([ours.layers[i].w.norm(dim=0) for i in (0, 2)])
    assert norms.max() < 1.2001 and (norms > 1.199).any() and norms.min() < 1.19

def test_max_norm_finds_nested_layers(digits):
    net = nn.Sequential(nn.Sequential(nn.Linear(784, 5), nn.ReLU()), nn.Linear(5, 10))
    with torch.no_grad(): net[0][0].weight *= 50
    opt = SGD(net.parameters(), lr=0.1)
    data = first(digits, 64)
    Learner(net, data, opt, F.cross_entropy, callbacks=[MaxNorm(1.2)]).fit(1)
    assert net[0][0].weight.norm(dim=1).max() < 1.2001

@pytest.mark.parametrize('limit', [0., -1., NAN])
def test_max_norm_refuses_a_limit_that_is_not_above_0(limit):
    with pytest.raises(ValueError, match='MaxNorm: limit is .*, expected above 0'):
        MaxNorm(limit)

def test_max_norm_default():
    assert MaxNorm().limit == 3.

# ---- EarlyStopping

@both_kinds
@pytest.mark.parametrize('settings, best', [
    (('valid_loss',), 2), (('valid_accuracy',), 3), (('valid_accuracy', 'min'), 2),
    (('valid_loss', 'max'), 3)])
def test_early_stopping_puts_back_the_best_epoch(digits, make, settings, best):
    shots = AfterEachEpoch()
    stopping = EarlyStopping(*settings)
    values = Scripted((0.5, 0.2, 0.7, 0.7, 0.6))
    learn = make_learner(make, digits, shots, values, stopping)
    learn.fit(5)
    assert stopping.epoch == best # of equals, the first
    assert same(learn.model.state_dict(), shots.models[best-1])
    assert not same(learn.model.state_dict(), shots.models[4])

def test_early_stopping_puts_nothing_back_before_the_end(digits):
    "A stopped fit has the weights of its last epoch, and goes on from them."
    class Stop(Callback):
        def after_epoch(self, learn): learn.stopped = len(learn.history) == 3
    shots = AfterEachEpoch()
    learn = make_learner(by_hand, digits, shots, Scripted((0.2, 0.5, 0.7, 0.6, 0.6)),
                         EarlyStopping(), Stop())
    learn.fit(5)
    assert not learn.done and same(learn.model.state_dict(), shots.models[2])

@both_kinds
def test_early_stopping_starts_over_with_a_new_fit(digits, make):
    shots = AfterEachEpoch()
    stopping = EarlyStopping()
    learn = make_learner(make, digits, shots, Scripted((0.5, 0.7)), stopping)
    learn.fit(2)
    stopping.best = -math.inf # no later epoch could be better
    stopping.waited = 9
    learn.fit(1)
    assert same(learn.model.state_dict(), shots.models[2])
    assert stopping.epoch == 3

def test_early_stopping_watches_the_validation_loss_by_default():
    assert EarlyStopping().metric == 'valid_loss'

def test_early_stopping_names_the_metrics_there_are(digits):
    learn = make_learner(by_hand, digits, EarlyStopping('loss'))
    words = "EarlyStopping: metric is 'loss', expected one of epoch, lr, train_loss"
    with pytest.raises(ValueError, match=words): learn.fit(1)

def stopped_early(data, values, *settings, epochs=9):
    "Its callback, its models after each epoch, and the learner."
    shots = AfterEachEpoch()
    stopping = EarlyStopping(*settings)
    learn = make_learner(by_hand, data, shots, Scripted(values), stopping)
    learn.fit(epochs)
    return stopping, shots.models, learn

@pytest.mark.parametrize('values, mode, patience, n, best', [
    ([3, 2, 2, 4, 1], 'min', 2, 4, 2), ([1, 2, 2, 1, 9], 'max', 2, 4, 2),
    ([3, 2, 1, 0, 5], 'min', 1, 5, 4), ([NAN, 3, NAN, 2, NAN, NAN, 0], 'min', 2, 6, 4),
    ([NAN, 3, NAN, 4, NAN, NAN, 9], 'max', 2, 6, 4),
    ([-1, -math.inf, 0], 'min', 2, 3, 1)])
def test_early_stopping_ends_the_fit_when_its_patience_is_over(
        digits, values, mode, patience, n, best):
    values = values + [values[-1]]*9
    settings = 'valid_loss', mode, patience
    stopping, models, learn = stopped_early(digits, values, *settings)
    assert len(learn.history) == n and stopping.epoch == best
    assert stopping.best == values[best-1]
    assert same(learn.model.state_dict(), models[best-1])
    assert learn.done # there is nothing to resume

def test_without_any_number_early_stopping_keeps_the_last_model(digits):
    stopping, models, learn = stopped_early(digits, [NAN]*9, 'valid_loss', 'min', 2)
    assert len(models) == 2 and stopping.epoch is None
    assert same(learn.model.state_dict(), models[-1])

def test_without_patience_the_fit_goes_on_to_its_end(digits):
    assert len(stopped_early(digits, range(9))[1]) == 9

@pytest.mark.parametrize('metric', ['valid_mae', 'my_loss', 'valid_f1', 'lr'])
@pytest.mark.parametrize('mode', [None, 'auto', 'less'])
def test_early_stopping_does_not_guess_what_is_better(metric, mode):
    words = f"EarlyStopping.'{metric}'.: mode is {mode!r}, expected one of min, max"
    with pytest.raises(ValueError, match=words): EarlyStopping(metric, mode)

@pytest.mark.parametrize('patience', [0, -1, 1.5, '3'])
def test_early_stopping_refuses_patience(patience):
    with pytest.raises(ValueError, match='EarlyStopping: patience is .* integer'):
        EarlyStopping(patience=patience)

@pytest.mark.parametrize('kept_until', [0, 1, 3])
def test_state_of_early_stopping_comes_back(digits, kept_until):
    values = [5, 4, 6, 6, 6, 6]
    stopping = EarlyStopping('valid_loss', 'min', 3)
    learn = make_learner(by_hand, digits, Scripted(values), stopping)
    if kept_until: learn.fit(kept_until)
    state = stopping.state_dict()
    json.dumps({k: v for k, v in state.items() if not isinstance(v, torch.Tensor)})
    other = EarlyStopping('valid_loss', 'min', 3)
    other.load_state_dict(state)
    assert (other.best, other.epoch, other.waited) == [
        (None, None, 0), (5, 1, 0), None, (4, 2, 1)][kept_until]
    assert same(other.kept, stopping.kept) and other.state_dict().keys() == state.keys()
    for name, t in other.kept.items(): # of its own
        assert t.data_ptr() != stopping.kept[name].data_ptr()

def test_patience_is_counted_on_after_a_stop(digits, in_tmp):
    values = [5, 4, 6, 6, 6, 6]
    def learner(*more):
        stopping = EarlyStopping(patience=3)
        parts = [Scripted(values), stopping, StopAt(), *more]
        return make_learner(by_hand, digits, *parts), stopping
    learn, stopping = learner()
    learn.fit(6) # stopped in the third epoch
    best = deepcopy(stopping.kept)
    learn.save('a.safetensors')
    other, others = learner()
    other.load('a.safetensors')
    for resumed, its in ((learn, stopping), (other, others)):
        resumed.fit()
        assert len(resumed.history) == 5 and its.epoch == 2
        assert same(resumed.model.state_dict(), best)

def test_weights_of_another_model_are_refused_before_the_fit(digits):
    learn = make_learner(by_hand, digits, stopping := EarlyStopping(), StopAt())
    learn.fit(5)
    stopping.kept['0.w'] = torch.zeros(3, 5)
    with pytest.raises(ValueError, match=r'0.w is .*\(3, 5\), expected .*\(784, 5\)'):
        learn.fit()

# ---- EMA

@pytest.mark.parametrize('Opt', [SGD, Adam, torch.optim.Adam])
def test_average_of_a_model_of_which_a_part_is_trained(digits, Opt):
    model = by_torch()
    opt = Opt(model[3].parameters(), lr=0.01)
    before = model[0].weight.detach().clone()
    learn = Learner(model, first(digits, 128), opt, F.cross_entropy,
                    callbacks=[EMA(0.5)])
    learn.fit(2)
    torch.testing.assert_close(model[0].weight.detach(), before)
    assert all('average' not in state for state in opt.state.values())
    learn.state_dict() # the optimizer has nothing that is not its own

@pytest.mark.parametrize('Opt', [Adam, torch.optim.Adam])
def test_average_of_a_parameter_that_gets_its_gradient_later(digits, Opt):
    class Late(Callback):
        def before_step(self, learn):
            if learn.step == 0: learn.model[3].weight.grad = None
    model = by_torch()
    opt = Opt(model.parameters(), lr=0.01)
    Learner(model, first(digits, 128), opt, F.cross_entropy,
            callbacks=[Late(), EMA(0.5)]).fit(2)

def test_state_of_the_average_comes_back(digits):
    average = EMA(0.8)
    assert average.state_dict() == {}
    make_learner(by_hand, digits, average).fit(1)
    state = average.state_dict()
    other = EMA(0.8)
    other.load_state_dict(dict(sorted(state.items(), reverse=True))) # in any order
    for a, b in zip(other.averages, average.averages, strict=True):
        assert torch.equal(a, b) and a.data_ptr() != b.data_ptr()

def test_average_of_another_model_is_refused_before_the_fit(digits):
    learn = make_learner(by_hand, digits, average := EMA(), StopAt())
    learn.fit(5)
    average.averages[1] = torch.zeros(1) # which would broadcast
    with pytest.raises(ValueError, match=r'1 is .*\(1,\), expected .*\(5,\)'):
        learn.fit()

@both_kinds
def test_average_is_that_of_the_steps(digits, make):
    shots = AfterEachStep()
    learn = make_learner(make, digits, shots, EMA(0.8))
    learn.bs = 128 # an epoch is a step
    learn.fit(4)
    for name, tensor in learn.model.state_dict().items():
        values = [model[name] for model in shots.models]
        if 'running' in name or 'num_' in name: # buffers are not averaged
            assert torch.equal(tensor, values[-1])
            continue
        average = values[0]
        for value in values[1:]: average = 0.8*average + 0.2*value
        torch.testing.assert_close(tensor, average)

@both_kinds
def test_second_fit_starts_a_new_average(digits, make):
    shots = AfterEachStep()
    learn = make_learner(make, digits, shots, EMA(0.8))
    learn.bs = 128
    learn.fit(4)
    learn.fit(1) # the average of one step is that step
    assert same(learn.model.state_dict(), shots.models[4])

def test_average_is_that_of_pytorch(digits):
    class Theirs(Callback):
        def __init__(self, model, decay):
            average = get_ema_multi_avg_fn(decay)
            self.averaged = AveragedModel(model, multi_avg_fn=average)
        def after_batch(self, learn): self.averaged.update_parameters(learn.model)

    net = MLP([784, 20, 10]).double()
    x, y, x_valid, y_valid = first(digits, 640)
    data = Data(x.double(), y, x_valid.double(), y_valid)
    theirs = Theirs(net, 0.9)
    opt = SGD(net.parameters(), lr=0.2)
    Learner(net, data, opt, F.cross_entropy, callbacks=[theirs, EMA(0.9)]).fit(2)
    for p, q in zip(net.parameters(), theirs.averaged.module.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)

def test_average_of_decay_0_is_the_last_step(digits):
    shots = AfterEachStep()
    learn = make_learner(by_hand, digits, shots, EMA(0.))
    learn.fit(2)
    assert same(learn.model.state_dict(), shots.models[-1])

@pytest.mark.parametrize('Opt', [Adam, torch.optim.Adam])
def test_average_works_beside_adam(digits, Opt):
    model = by_torch()
    opt = Opt(model.parameters(), lr=0.01)
    shots = AfterEachStep()
    data = first(digits, 128)
    Learner(model, data, opt, F.cross_entropy, callbacks=[shots, EMA(0.5)]).fit(2)
    w = [m['0.weight'] for m in shots.models]
    average = w[0]
    for value in w[1:]: average = 0.5*average + 0.5*value
    torch.testing.assert_close(model[0].weight.detach(), average)

@pytest.mark.parametrize('decay', [-0.1, 1., NAN])
def test_average_refuses_a_decay_outside_0_to_1(decay):
    with pytest.raises(ValueError, match='EMA: decay is .*, expected'): EMA(decay)

def test_average_default():
    assert EMA().decay == 0.999

# ---- stop and resume

class StopAt(Callback):
    "Stop in the third epoch."
    def after_batch(self, learn): learn.stopped = learn.step == 5

def resumable(data, path, *more, order=0):
    "A learner with all of it, and its callbacks by name."
    torch.manual_seed(order)
    end = AtTheEnd()
    stopping = EarlyStopping('lr', 'max') # the best epoch: 2
    callbacks = [end, Schedule(), EMA(0.5), Checkpoint(path), stopping, *more]
    learn = make_learner(by_hand, data, *callbacks, order=order)
    return learn, end, stopping

@pytest.fixture
def three_runs(digits, in_tmp, capsys):
    "A run of five epochs: through, stopped and resumed, resumed by another learner."
    through = resumable(digits, 'a.safetensors')
    through[0].fit(5)
    stopped = resumable(digits, 'b.safetensors', StopAt())
    stopped[0].fit(5)
    capsys.readouterr()
    other = resumable(digits, 'c.safetensors', StopAt(), order=7)
    return through, stopped, other

def test_stopped_fit_keeps_its_own_weights(three_runs):
    (through, end, _), (stopped, stopped_end, _), _ = three_runs
    assert same(end.model, through.model.state_dict()) # the best one, before its end
    assert not stopped.done
    assert same(stopped_end.model, stopped.model.state_dict())

def test_checkpoint_holds_the_average_and_the_best_epoch(three_runs):
    stopped = three_runs[1][0]
    found = [name.split('.')[0] for name in stopped.state_dict()]
    assert found == (['model']*4 + ['random']*2 + ['order'] + ['opt']*4
                     + ['callback']*8 + ['training'])

def test_resumed_fit_ends_with_the_same_bits(three_runs):
    (through, end, stopping), mine, other = three_runs
    other[0].load('b.safetensors')
    for learn, its_end, _ in (mine, other):
        learn.fit()
        assert same(its_end.model, end.model)
        assert learn.history == through.history
        for a, b in zip(learn.callbacks[2].averages, through.callbacks[2].averages):
            assert torch.equal(a, b)
    saved = [{k: v for k, v in load(f'{name}.safetensors').items() if k != 'training'}
             for name in 'abc']
    assert same(saved[0], saved[1]) and same(saved[0], saved[2])
    for learn, _, kept in (mine, other):
        assert (kept.epoch, kept.best) == (stopping.epoch, stopping.best)
        assert kept.epoch == 2 # before the stop
        assert same(kept.kept, stopping.kept)
        assert same(learn.model.state_dict(), through.model.state_dict())

def test_failed_fit_keeps_its_own_weights(digits):
    class Fails(Callback):
        def before_step(self, learn):
            if learn.step == 3: raise KeyboardInterrupt
    end = AtTheEnd()
    learn = make_learner(by_hand, digits, end, EarlyStopping(), EMA(0.5), Fails())
    with pytest.raises(KeyboardInterrupt): learn.fit(5)
    assert same(learn.model.state_dict(), end.model)

# ---- what the lesson says, in single runs

def train(data, epochs=15, weight_decay=0., loss=None, seed=1):
    "The network of lesson 12."
    g = torch.Generator().manual_seed(seed)
    hidden = Linear(784, 50, generator=g)
    model = Sequential([hidden, ReLU(), Linear(50, 10, std=0.02, generator=g)])
    opt = SGD(decay_groups(model, weight_decay), lr=0.2, momentum=0.5)
    learn = Learner(model, data, opt, loss or CrossEntropy(), callbacks=[Schedule()],
                    generator=g)
    learn.fit(epochs)
    return learn

@pytest.mark.slow
def test_strong_decay_closes_the_gap_and_loses_accuracy(digits):
    found = []
    for weight_decay in (0., 0.1):
        learn = train(first(digits, 1000), weight_decay=weight_decay)
        seen = learn.evaluate(digits.x_train[:1000], digits.y_train[:1000])['accuracy']
        unseen = learn.evaluate(digits.x_valid, digits.y_valid)['accuracy']
        found.append((seen - unseen, unseen))
    (gap, unseen), (smaller_gap, less) = found
    assert smaller_gap < 0.7*gap and less < unseen

def test_history_of_smoothed_labels_is_the_smoothed_loss(digits):
    learn = train(first(digits, 64), 2, loss=CrossEntropy(label_smoothing=0.3))
    scores = learn.predict(digits.x_valid[:100])
    loss = F.cross_entropy(scores, digits.y_valid[:100], label_smoothing=0.3).item()
    assert learn.history[-1]['valid_loss'] == pytest.approx(loss, rel=1e-5)
