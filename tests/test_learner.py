"The training loop, its callbacks, and the state of a run."
import inspect
import math
import multiprocessing
import os
import pickle
import signal
import threading
from copy import deepcopy

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm.auto import tqdm

import fcnet.learner
from fcnet.classify import CrossEntropy, accuracy
from fcnet.data import Data
from fcnet.layers import Linear, ReLU, Sequential
from fcnet.learner import (Callback, History, Learner, Progress, Schedule,
                           bars_are_seen, check_tensors)
from fcnet.nn_module import MLP
from fcnet.optim import SGD, Adam, AdamW, one_cycle


def network(seed=0):
    g = torch.Generator().manual_seed(seed)
    return Sequential([Linear(784, 50, generator=g), ReLU(),
                       Linear(50, 10, std=0.02, generator=g)])

def first(data, n=128):
    return Data(*(t[:n] for t in data))

def hand_made(data, *callbacks, lr=0.1, seed=0, **settings):
    "A learner with a hand-written network and SGD."
    model = network(seed)
    opt = SGD(model.parameters(), lr=lr)
    return Learner(model, data, opt, CrossEntropy(), callbacks=callbacks, **settings)

def in_torch(data, *callbacks, net=None, lr=0.1, **settings):
    "A learner with an `nn.Module` and SGD."
    net = net or MLP([784, 50, 10])
    opt = SGD(net.parameters(), lr=lr)
    return Learner(net, data, opt, F.cross_entropy, callbacks=callbacks, **settings)

def numbered_rows(n=100):
    "Data whose rows can be told apart by their first value."
    x = torch.arange(float(n))[:,None].expand(n, 6).contiguous()
    return Data(x, torch.zeros(n).long(), torch.ones(9, 6), torch.zeros(9).long())

class StopAt(Callback):
    def __init__(self, epoch, batch): self.at = (epoch, batch)
    def after_batch(self, learn):
        if (learn.epoch, learn.batch) == self.at: learn.stopped = True

class Rates(Callback):
    def __init__(self): self.seen = []
    def before_step(self, learn): self.seen.append(learn.opt.param_groups[0]['lr'])

class Rows(Callback):
    def __init__(self): self.seen = []
    def before_batch(self, learn): self.seen += learn.x[:,0].tolist()

class Points(Callback):
    "Writes down at which points it is called."
    def __init__(self, log, name=''):
        self.log = log
        self.name = name
    def before_fit(self, learn): self.log.append(f'{self.name}before_fit')
    def before_epoch(self, learn): self.log.append(f'{self.name}before_epoch')
    def before_batch(self, learn): self.log.append(f'{self.name}before_batch')
    def before_step(self, learn): self.log.append(f'{self.name}before_step')
    def after_batch(self, learn): self.log.append(f'{self.name}after_batch')
    def after_epoch(self, learn): self.log.append(f'{self.name}after_epoch')
    def after_fit(self, learn): self.log.append(f'{self.name}after_fit')


# ---- what a learner and a fit refuse

class NoBase:
    def after_epoch(self, learn): pass

SLIPS = [('loss', CrossEntropy), ('loss', 'cross_entropy'), ('loss', None),
         ('metrics', [accuracy]), ('metrics', accuracy), ('metrics', None),
         ('metrics', {'loss': accuracy}), ('metrics', {'accuracy': 1}),
         ('callbacks', Progress()), ('callbacks', [Progress]), ('callbacks', [NoBase()]),
         ('opt', SGD), ('opt', None), ('model', nn.Linear), ('model', accuracy),
         ('generator', 0), ('bs', 32.), ('bs', None), ('bs', 0), ('bs', True),
         ('data', torch.zeros(3, 784)), ('data', [1, 2]), ('data', None)]

@pytest.mark.parametrize('part, wrong', SLIPS,
                         ids=[f'{i}-{part}' for i, (part, _) in enumerate(SLIPS)])
def test_a_part_of_a_wrong_kind_is_refused_by_its_name(few, part, wrong):
    learn = hand_made(first(few))
    parts = {name: getattr(learn, name) for name in
             ('model', 'data', 'opt', 'loss', 'bs', 'callbacks', 'metrics', 'generator')}
    with pytest.raises(ValueError, match=f'^Learner: {part} ') as error:
        Learner(**{**parts, part: wrong})
    assert len(str(error.value)) < 250
    setattr(learn, part, wrong) # as well if it is replaced later
    with pytest.raises(ValueError, match=f'^Learner: {part} '): learn.fit(1)
    assert not learn.history

@pytest.mark.parametrize('loss', [nn.CrossEntropyLoss, 'cross_entropy'])
def test_a_loss_class_for_a_model_of_pytorch(few, loss):
    net = MLP([784, 5, 10])
    opt = SGD(net.parameters(), lr=0.1)
    with pytest.raises(ValueError, match='^Learner: loss is'):
        Learner(net, few, opt, loss)

def test_a_model_without_parameters_is_refused(few):
    opt = SGD([torch.ones(1)], lr=0.1)
    with pytest.raises(ValueError, match="opt does not hold the model's parameters"):
        Learner(Sequential([ReLU()]), few, opt, CrossEntropy())

@pytest.mark.parametrize('x', [[[0.]*784], torch.zeros(3, 784).numpy()], ids=type)
def test_predict_takes_tensors(few, x):
    with pytest.raises(ValueError, match='^predict: x is a .*, expected a Tensor'):
        hand_made(few).predict(x)

# ---- what may change, and when

@pytest.mark.parametrize('change', [dict(bs=7), dict(bs=64), dict(n=30), dict(n=100)])
def test_batch_size_and_data_may_change_between_fits(change):
    rows = Rows()
    rates = Rates()
    data = numbered_rows(60)
    learn = in_torch(data, Schedule(), rows, rates, net=nn.Linear(6, 3), bs=16)
    learn.fit(1)
    rows.seen.clear()
    rates.seen.clear()
    n = change.get('n', 60)
    learn.bs = change.get('bs', 16)
    learn.data = numbered_rows(n)
    learn.fit(2)
    assert sorted(rows.seen) == sorted(2*list(range(n)))
    assert rates.seen[0] <= 0.1 and rates.seen[-1] < 1e-4 and len(learn.history) == 3

@pytest.mark.parametrize('change', [dict(bs=8), dict(data=numbered_rows(50))])
def test_within_a_fit_they_may_not(change):
    class Change(Callback):
        def after_epoch(self, learn): vars(learn).update(change)
    learn = in_torch(numbered_rows(60), Change(), net=nn.Linear(6, 3), bs=16)
    with pytest.raises(ValueError, match='bs or data changed'): learn.fit(2)
    learn = in_torch(numbered_rows(60), StopAt(0, 2), net=nn.Linear(6, 3), bs=16)
    learn.fit(2)
    vars(learn).update(change)
    with pytest.raises(ValueError, match='bs or data changed'): learn.fit()

@pytest.mark.parametrize('shape', [(6,), (1, 2, 3)])
def test_loaders_become_data(shape):
    x = torch.randn(50, *shape)
    y = torch.randint(3, (50,))
    train = DataLoader(TensorDataset(x[:40], y[:40]), batch_size=7)
    valid = [(x[40:45], y[40:45]), (x[45:], y[45:])] # any iterable of batches
    data = Data.from_batches(train, valid)
    assert torch.equal(torch.cat([data.x_train, data.x_valid]), x.flatten(1))
    assert torch.equal(torch.cat([data.y_train, data.y_valid]), y)
    in_torch(data, net=nn.Linear(6, 3)).fit(1)
    with pytest.raises(ValueError, match='^Learner: data is .*DataLoader'):
        in_torch(train, net=nn.Linear(6, 3))
    with pytest.raises(ValueError, match='four tensors; Data.from_batches'):
        in_torch((train, valid), net=nn.Linear(6, 3))

@pytest.mark.parametrize('n, bs, sizes', [
    (33, 16, [16, 17]), (34, 16, [16, 16, 2]), (32, 16, [16, 16]), (17, 16, [17]),
    (1, 16, [1]), (5, 1, [1]*5), (16, 16, [16]), (3, 100, [3])])
def test_a_single_row_joins_the_batch_before(n, bs, sizes):
    found = []
    class Sizes(Callback):
        def before_batch(self, learn): found.append(len(learn.x))
    rows = Rows()
    learn = in_torch(numbered_rows(n), Sizes(), rows, net=nn.Linear(6, 3), bs=bs)
    learn.fit(1)
    assert found == sizes and learn.n_batches == len(sizes) == learn.step
    assert sorted(rows.seen) == list(range(n))

def test_batch_norm_of_pytorch_learns_from_every_number_of_rows():
    net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    in_torch(numbered_rows(65), net=net, bs=32).fit(2)

def test_an_optimizer_may_hold_a_part_of_the_parameters(few):
    model = network()
    opt = SGD(model.layers[2].parameters(), lr=0.1, momentum=0.9)
    before = deepcopy(model.state_dict())
    learn = Learner(model, first(few), opt, CrossEntropy(), callbacks=[])
    learn.fit(1)
    same = {name: torch.equal(t, before[name]) for name, t in model.state_dict().items()}
    assert same == {'0.w': True, '0.b': True, '2.w': False, '2.b': False}
    learn.load_state_dict(learn.state_dict())

# ---- what a fit leaves behind

@pytest.mark.parametrize('lr', [math.inf, 1e30]) # weights, and the loss, of nan
def test_the_last_step_may_not_explode(few, lr):
    learn = hand_made(first(few), bs=128)
    learn.opt.param_groups[0]['lr'] = lr
    words = 'weights or loss are no longer finite after epoch 1; try a lower learning'
    with pytest.raises(FloatingPointError, match=words): learn.fit(1)
    assert not learn.done # so nothing saves it

def test_weights_that_the_loss_does_not_show_are_seen():
    class Spoil(Callback):
        def before_step(self, learn): learn.opt.param_groups[0]['lr'] = 0.
        def after_batch(self, learn): learn.model[0].bias.data[0] = -math.inf
    net = nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 3))
    with pytest.raises(FloatingPointError, match='weights or loss are no longer'):
        in_torch(numbered_rows(), Spoil(), net=net).fit(1)

def test_a_learner_can_be_copied_and_pickled_after_a_fit(few, monkeypatch):
    monkeypatch.setattr(fcnet.learner, 'bars_are_seen', lambda: True)
    x = first(few).x_train.requires_grad_()
    learn = in_torch(first(few)._replace(x_train=x), Schedule(), Progress())
    learn.fit(1)
    for other in (deepcopy(learn), pickle.loads(pickle.dumps(learn))):
        for p, q in zip(other.model.parameters(), learn.model.parameters(), strict=True):
            assert torch.equal(p, q)
        other.fit(1)

def test_every_after_fit_is_called():
    called = []
    class Fails(Callback):
        def after_fit(self, learn):
            called.append('fails')
            raise RuntimeError('first')
    class Cleans(Callback):
        def after_fit(self, learn): called.append('cleans')
    learn = in_torch(numbered_rows(), Fails(), Cleans(), net=nn.Linear(6, 3))
    with pytest.raises(RuntimeError, match='first'): learn.fit(1)
    assert called == ['fails', 'cleans']

def test_a_callback_that_is_last_is_called_after_those_behind_it():
    log = []
    last = Points(log, 'last ')
    last.last = True
    learn = in_torch(numbered_rows(), last, Points(log, 'other '), net=nn.Linear(6, 3))
    learn.fit(1)
    assert log[::2] == [f'other {p.removeprefix("last ")}' for p in log[1::2]]

@pytest.mark.parametrize('point', ['before_batch', 'before_step', 'after_batch'])
def test_a_look_leaves_the_mode_as_it_was(point):
    modes = []
    class Look(Callback):
        def look(self, learn):
            learn.predict(learn.data.x_valid)
            modes.append(learn.model.training)
    setattr(Look, point, Look.look)
    net = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5))
    learn = in_torch(numbered_rows(), Look(), net=net)
    learn.fit(2)
    assert set(modes) == {True} and not net.training # a fit ends in evaluation mode

def test_prediction_in_another_thread_changes_no_run():
    def weights(look):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 9), nn.Dropout(0.5), nn.Linear(9, 3))
        learn = in_torch(numbered_rows(), Look(look), net=net, lr=1e-4, bs=10)
        learn.fit(2)
        return net.state_dict()
    class Look(Callback):
        def __init__(self, look): self.look = look
        def before_batch(self, learn):
            if not self.look: return
            thread = threading.Thread(target=learn.predict, args=(learn.data.x_valid,))
            thread.start()
            thread.join()
            assert learn.model.training
    alone = weights(False)
    for name, t in weights(True).items(): assert torch.equal(t, alone[name])

def test_inputs_that_require_a_gradient_train_as_others_do(few):
    found = []
    for asked in (False, True):
        data = first(few)
        x = data.x_train.clone().requires_grad_(asked)
        learn = hand_made(data._replace(x_train=x), generator=torch.Generator().manual_seed(0))
        learn.fit(1)
        found.append(learn.model.parameters())
    for one, two in zip(*found): assert torch.equal(one, two)

def test_nothing_can_be_evaluated_on_no_rows(few):
    data = first(few)
    with pytest.raises(ValueError, match='evaluate: rows is 0, expected an integer'):
        hand_made(data).evaluate(data.x_valid[:0], data.y_valid[:0])

@pytest.mark.parametrize('make', [hand_made, in_torch])
def test_a_run_is_the_same_while_another_thread_predicts(few, make):
    def trained(look):
        torch.manual_seed(0)
        learn = make(first(few), bs=5, generator=torch.Generator().manual_seed(0))
        stop = threading.Event()
        errors = []
        def predict():
            try:
                while not stop.is_set(): learn.predict(learn.data.x_valid)
            except Exception as e: errors.append(e)
        threads = [threading.Thread(target=predict) for _ in range(3*look)]
        for thread in threads: thread.start()
        try: learn.fit(5)
        finally: stop.set()
        for thread in threads: thread.join()
        assert not errors
        return [p.detach() for p in learn.model.parameters()]
    for one, two in zip(trained(False), trained(True)): assert torch.equal(one, two)

# ---- what a resumed run has

class Counts(Callback):
    "Scales the loss by what it has counted, so a wrong count makes other weights."
    def __init__(self):
        self.n = 0
        self.sum = torch.zeros(2)
    def before_step(self, learn):
        self.n += 1
        self.sum = self.sum + 1
        for p in learn.model.parameters(): p.grad = p.grad/(self.n + self.sum[0])
    def state_dict(self): return {'n': self.n, 'sum': self.sum}
    def load_state_dict(self, state):
        self.n = state['n']
        self.sum = state['sum']

def test_what_a_callback_remembers_survives_a_stop(few):
    def make(seed, *at):
        g = torch.Generator().manual_seed(seed)
        return hand_made(first(few), Counts(), StopAt(*at), bs=32, generator=g)
    through = make(0, 9, 9)
    through.fit(3)
    stopped = make(0, 1, 2)
    stopped.fit(3)
    resumed = make(1, 9, 9)
    resumed.load_state_dict(stopped.state_dict())
    resumed.fit()
    assert stopped.callbacks[0].n == 6 and resumed.callbacks[0].n == 12
    for p, q in zip(resumed.model.parameters(), through.model.parameters()):
        assert torch.equal(p, q)

@pytest.mark.parametrize('killed', [True, False])
def test_a_rate_that_is_set_after_loading_is_obeyed(few, killed):
    class Keep(Callback):
        def after_batch(self, learn):
            if learn.step != 3: return
            self.state = deepcopy(learn.state_dict())
            learn.stopped = not killed
            if killed: raise SystemExit
    keep = Keep()
    learn = hand_made(first(few), Schedule(lambda step, n: 1.), keep, bs=32)
    if killed:
        with pytest.raises(SystemExit): learn.fit(2)
    else: learn.fit(2)
    rates = Rates()
    again = hand_made(first(few), Schedule(lambda step, n: 1.), Keep(), bs=32)
    again.load_state_dict(keep.state)
    assert again.opt.param_groups[0]['lr'] == 0.1
    again.opt.param_groups[0]['lr'] = 0.01
    again.callbacks.append(rates)
    again.fit()
    assert set(rates.seen) == {0.01}

OPTIMIZERS = ['SGD', 'Adam', 'AdamW', 'NAdam', 'RAdam', 'Adamax', 'Adagrad', 'Adadelta',
              'RMSprop', 'Rprop', 'ASGD', 'Adafactor']

@pytest.mark.parametrize('name', OPTIMIZERS)
def test_every_optimizer_of_pytorch_resumes(few, name):
    def make(seed):
        torch.manual_seed(seed)
        net = MLP([784, 8, 10])
        opt = getattr(torch.optim, name)(net.parameters(), lr=0.01)
        return Learner(net, first(few), opt, F.cross_entropy, bs=32,
                       callbacks=[StopAt(1, 1)])
    learn = make(0)
    learn.fit(2)
    other = make(1)
    other.load_state_dict(learn.state_dict())
    learn.fit()
    torch.manual_seed(0)
    other.fit()
    for p, q in zip(learn.model.parameters(), other.model.parameters()):
        assert torch.equal(p, q)
    bad = learn.state_dict()
    kept = [key for key in bad if key.startswith('opt.0.') and bad[key].dim() == 2]
    for key in kept: # of another shape, which would be spread over the rows
        with pytest.raises(ValueError, match=key):
            make(1).load_state_dict(bad | {key: bad[key][:1, :1]})

def test_other_columns_of_the_history_are_kept_and_drawn_over(few):
    class Seconds(Callback):
        def after_epoch(self, learn): learn.history[-1]['valid_seconds'] = learn.epoch
    learn = hand_made(first(few))
    learn.fit(1)
    learn.callbacks = [Seconds()]
    learn.fit(2)
    learn.history.plot()
    other = hand_made(first(few), Seconds())
    other.load_state_dict(learn.state_dict())
    assert other.history == learn.history

def test_a_hand_written_model_needs_a_layer_as_its_loss(few):
    model = network()
    opt = SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match='loss is <function .*expected an object of Module'):
        Learner(model, few, opt, F.cross_entropy)

def test_the_loss_is_required(few):
    net = MLP([784, 10])
    with pytest.raises(TypeError, match='loss'):
        Learner(net, few, SGD(net.parameters(), lr=1))

def test_the_optimizer_must_hold_the_parameters_and_no_others(few):
    model = network()
    wrong = [SGD(network().parameters(), lr=0.1),
             SGD([*model.parameters(), torch.ones(1)], lr=0.1)]
    for opt in wrong:
        with pytest.raises(ValueError, match='opt does not hold the model'):
            Learner(model, few, opt, CrossEntropy())

def test_parameters_may_be_in_several_groups(few):
    model = network()
    opt = SGD([{'params': p} for p in model.parameters()], lr=0.1)
    Learner(model, first(few), opt, CrossEntropy(), callbacks=[]).fit(1)

@pytest.mark.parametrize('bs', [0, -1, 1.5, True, None])
def test_a_batch_needs_rows(few, bs):
    with pytest.raises(ValueError, match=f'Learner: bs is {bs}, expected an integer'):
        hand_made(few, bs=bs)

def test_data_that_are_no_good_are_refused(few):
    wrongs = {'x_train is a ndarray': few._replace(x_train=few.x_train.numpy()),
              'x_train has no rows': few._replace(x_train=few.x_train[:0]),
              'x_valid has nan': few._replace(x_valid=few.x_valid/0)}
    for words, wrong in wrongs.items():
        with pytest.raises(ValueError, match=words): hand_made(wrong)

def test_a_plain_tuple_of_four_is_data(few):
    learn = hand_made(tuple(first(few)))
    assert learn.n_batches == 2
    assert learn.data.x_valid is not None

@pytest.mark.parametrize('epochs', [0, -1, 1.5, True, '2'])
def test_epochs_are_a_count(few, epochs):
    with pytest.raises(ValueError, match='fit: epochs is .*expected an integer'):
        hand_made(first(few)).fit(epochs)

def test_there_must_be_something_to_resume(few):
    learn = hand_made(first(few))
    with pytest.raises(ValueError, match='fit: nothing to resume'): learn.fit()
    learn.fit(1)
    with pytest.raises(ValueError, match='fit: nothing to resume'): learn.fit()

def test_defaults():
    params = inspect.signature(Learner).parameters.values()
    defaults = {p.name: p.default for p in params if p.default is not p.empty}
    assert defaults == {'bs': 64, 'callbacks': None, 'metrics': {'accuracy': accuracy},
                        'generator': None}

def test_default_callbacks_and_generator(few):
    model = network()
    learn = Learner(model, few, SGD(model.parameters(), lr=0.1), CrossEntropy())
    assert [type(callback) for callback in learn.callbacks] == [Schedule, Progress]
    assert learn.callbacks[0].shape is one_cycle
    assert learn.generator is torch.default_generator

def test_lists_that_are_given_stay_the_users_own(few):
    callbacks = [Callback()]
    metrics = {}
    model = network()
    learn = Learner(model, few, SGD(model.parameters(), lr=0.1), CrossEntropy(),
                    callbacks=callbacks, metrics=metrics)
    learn.callbacks.append(Callback())
    learn.metrics['accuracy'] = accuracy
    assert len(callbacks) == 1 and metrics == {}


# ---- the gradients of a batch

@pytest.mark.parametrize('make', [hand_made, in_torch])
def test_gradients_are_those_of_the_batch_and_no_others(few, make):
    learn = make(few)
    x = few.x_train[:64]
    y = few.y_train[:64]
    first_loss = learn.loss_and_backward(x, y)
    grads = [p.grad.clone() for p in learn.model.parameters()]
    assert torch.equal(learn.loss_and_backward(x, y), first_loss)
    for p, grad in zip(learn.model.parameters(), grads):
        assert torch.equal(p.grad, grad)
    assert first_loss.shape == () and not first_loss.requires_grad

def test_gradients_agree_with_autograd_in_float64(few):
    model = network().to(torch.float64)
    x = few.x_train[:64].double()
    y = few.y_train[:64]
    data = Data(x, y, x, y)
    opt = SGD(model.parameters(), lr=0.1)
    learn = Learner(model, data, opt, CrossEntropy(), callbacks=[])
    loss = learn.loss_and_backward(x, y)
    params = [p.clone().requires_grad_() for p in model.parameters()]
    hidden = (x@params[0] + params[1]).relu()
    reference = F.cross_entropy(hidden@params[2] + params[3], y)
    reference.backward()
    torch.testing.assert_close(loss, reference.detach(), rtol=1e-12, atol=0)
    for p, q in zip(model.parameters(), params):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-10, atol=1e-14)

def test_nothing_is_kept_after_a_batch(few):
    learn = hand_made(first(few))
    learn.fit(1)
    stacks = [m.stack for m in (*learn.model.modules(), learn.loss)]
    assert stacks == [[]]*5

def test_our_loss_works_on_an_nn_module(few):
    data = first(few)
    losses = []
    for loss in (CrossEntropy(), F.cross_entropy):
        torch.manual_seed(1)
        net = MLP([784, 10])
        learn = Learner(net, data, SGD(net.parameters(), lr=0.1), loss, callbacks=[])
        learn.fit(2)
        losses.append(learn.history[-1]['valid_loss'])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


# ---- the loop

def test_callbacks_are_called_at_seven_points_in_their_order(few):
    log = []
    learn = hand_made(first(few), Points(log, 'a '), Points(log, 'b '))
    learn.fit(2)
    batch = ['before_batch', 'before_step', 'after_batch']
    epoch = ['before_epoch', *batch*2, 'after_epoch']
    assert log == [f'{name} {point}' for point in ['before_fit', *epoch*2, 'after_fit']
                   for name in 'ab']

def test_a_plain_callback_does_nothing():
    callback = Callback()
    for point in ('before_fit', 'before_epoch', 'before_batch', 'before_step',
                  'after_batch', 'after_epoch', 'after_fit'):
        assert getattr(callback, point)(None) is None
    assert callback.wrap_step(None, 'step') == 'step'
    assert callback.wrap_predict(None, 'predict') == 'predict'

def test_the_counters_follow_the_steps(few):
    learn = hand_made(few, bs=100)
    assert learn.n_batches == 7 # the last one has 40 rows
    assert [learn.step, learn.n_steps, learn.done] == [0, 0, True]
    sizes = []
    class Sizes(Callback):
        def after_batch(self, learn): sizes.append(len(learn.x))
    learn.callbacks = [Sizes(), StopAt(1, 3)]
    learn.fit(3)
    assert [learn.step, learn.n_steps, learn.epoch, learn.batch] == [10, 21, 1, 3]
    assert not learn.done and learn.stopped
    assert sizes == [100]*6 + [40] + [100]*3

@pytest.mark.parametrize('make', [hand_made, in_torch])
def test_a_callback_may_evaluate_in_between(few, make):
    modes = []
    class Looks(Callback):
        def before_step(self, learn): modes.append(learn.model.training)
        def after_batch(self, learn): learn.evaluate(few.x_valid[:64], few.y_valid[:64])
    make(first(few), Looks(), bs=32).fit(2)
    assert modes == [True]*8

def test_inputs_and_targets_may_be_replaced(few):
    class Ones(Callback):
        def before_batch(self, learn):
            learn.x = torch.ones(3, 784)
            learn.y = torch.tensor([1, 2, 3])
    learn = hand_made(first(few), Ones())
    twin = network()
    learn.fit(1)
    opt = SGD(twin.parameters(), lr=0.1)
    loss = CrossEntropy()
    for _ in range(2):
        twin.zero_grad()
        loss(twin(torch.ones(3, 784)), torch.tensor([1, 2, 3]))
        twin.backward(loss.backward())
        opt.step()
    for p, q in zip(learn.model.parameters(), twin.parameters()):
        assert torch.equal(p, q)

def test_every_epoch_visits_every_row_once_even_if_it_was_stopped():
    net = nn.Linear(6, 3)
    rows = Rows()
    learn = in_torch(numbered_rows(), rows, StopAt(1, 3), net=net, bs=16)
    learn.fit(2)
    assert [learn.epoch, learn.batch] == [1, 3]
    learn.callbacks.pop()
    learn.fit()
    assert sorted(rows.seen[:100]) == list(range(100))
    assert sorted(rows.seen[100:]) == list(range(100))
    assert rows.seen[:100] != rows.seen[100:] != list(range(100))

def test_stopping_after_the_last_batch_of_an_epoch_completes_it(few):
    log = []
    learn = hand_made(first(few), StopAt(1, 0), Points(log))
    learn.fit(3)
    assert [learn.epoch, learn.batch, len(learn.history)] == [1, 0, 1]
    assert learn.order is None
    assert log[-2:] == ['after_epoch', 'after_fit']

def test_a_new_fit_forgets_a_stopped_one(few):
    learn = hand_made(first(few), StopAt(0, 1))
    learn.fit(2)
    order = learn.order
    learn.callbacks.clear()
    learn.fit(1)
    assert [learn.step, learn.n_steps, len(learn.history)] == [2, 2, 1]
    assert order is not None and learn.order is None

def test_the_generator_shuffles(few):
    def order(seed):
        rows = Rows()
        data = numbered_rows()
        g = torch.Generator().manual_seed(seed)
        in_torch(data, rows, net=nn.Linear(6, 3), generator=g).fit(1)
        return rows.seen
    expected = torch.randperm(100, generator=torch.Generator().manual_seed(5)).tolist()
    assert order(5) == expected != order(6)

def test_a_loss_that_is_not_finite_stops_before_the_step(few):
    class Spoil(Callback):
        def before_batch(self, learn): learn.x = learn.x*math.inf
    learn = hand_made(few)
    before = deepcopy(learn.model.state_dict())
    after = []
    class After(Callback):
        def after_fit(self, learn): after.append(learn.step)
    learn.callbacks = [Spoil(), After()]
    words = 'the loss is nan in epoch 1, batch 1; try'
    with pytest.raises(FloatingPointError, match=words):
        learn.fit(1)
    for name, t in learn.model.state_dict().items(): assert torch.equal(t, before[name])
    assert after == [0]

def test_the_error_names_epoch_and_batch(few):
    class Spoils(Callback):
        def before_batch(self, learn):
            if learn.step == 14: learn.x = learn.x/0
    with pytest.raises(FloatingPointError, match='in epoch 2, batch 5; try a lower'):
        hand_made(few, Spoils()).fit(2)

def test_after_an_error_the_failed_batch_is_tried_again(few):
    class Fails(Callback):
        after = 0
        def before_step(self, learn):
            if learn.step == 2: raise KeyboardInterrupt
        def after_fit(self, learn): self.after += 1
    def make(*callbacks):
        g = torch.Generator().manual_seed(0)
        return hand_made(first(few), *callbacks, Schedule(), bs=32, generator=g)
    fails = Fails()
    through = make()
    failed = make(fails)
    through.fit(1)
    with pytest.raises(KeyboardInterrupt): failed.fit(1)
    assert [fails.after, failed.step] == [1, 2]
    failed.callbacks.pop(0)
    failed.fit()
    for p, q in zip(through.model.parameters(), failed.model.parameters()):
        assert torch.equal(p, q)

def test_after_fit_is_called_if_before_fit_fails(few):
    log = []
    class Fails(Callback):
        def before_fit(self, learn): raise RuntimeError('not today')
    with pytest.raises(RuntimeError, match='not today'):
        hand_made(first(few), Fails(), Points(log)).fit(1)
    assert log == ['after_fit']

def test_a_fit_works_in_another_thread(few):
    learn = hand_made(first(few))
    thread = threading.Thread(target=learn.fit, args=(1,))
    thread.start()
    thread.join()
    assert len(learn.history) == 1

@pytest.mark.parametrize('make', [lambda p: SGD(p, lr=0.3), lambda p: Adam(p, lr=3e-3),
                                  lambda p: SGD(p, lr=0.05, momentum=0.9)])
def test_optimizers_learn_in_one_epoch_and_any_metric_will_do(digits, make):
    def top3(scores, y):
        return (scores.topk(3).indices == y[:,None]).any(1).double().mean()
    data = Data(*(t[:10_000] for t in digits[:2]), *(t[:2000] for t in digits[2:]))
    model = network()
    learn = Learner(model, data, make(model.parameters()), CrossEntropy(),
                    callbacks=[Schedule()],
                    metrics={'accuracy': accuracy, 'top3': top3})
    learn.fit(1)
    row = learn.history[-1]
    assert row['valid_top3'] > row['valid_accuracy'] > 0.88

def test_both_kinds_of_model_learn_the_same_numbers(few):
    data = Data(few.x_train.double(), few.y_train, few.x_valid.double(), few.y_valid)
    ours = network().to(torch.float64)
    net = MLP([784, 50, 10]).double()
    with torch.no_grad():
        for p, q in zip(net.parameters(), ours.parameters()): p.copy_(q.t())
    settings = dict(lr=0.003, weight_decay=0.1)
    histories = []
    for model, opt, loss in (
            (ours, AdamW(ours.parameters(), **settings), CrossEntropy()),
            (net, torch.optim.AdamW(net.parameters(), **settings), F.cross_entropy)):
        g = torch.Generator().manual_seed(3)
        learn = Learner(model, data, opt, loss, callbacks=[Schedule()], generator=g)
        learn.fit(2)
        histories.append(learn.history)
    for mine, theirs in zip(*histories): assert mine == pytest.approx(theirs, rel=1e-9)


# ---- steps and predictions that a callback replaces

class Accumulate(Callback):
    "Compute the gradients of a batch in parts of `n` rows."
    def __init__(self, n): self.n = n
    def wrap_step(self, learn, step):
        def in_parts(x, y):
            total = 0.
            sums = [torch.zeros_like(p) for p in learn.model.parameters()]
            for x_part, y_part in zip(x.split(self.n), y.split(self.n)):
                share = len(x_part)/len(x)
                total = total + share*step(x_part, y_part)
                for s, p in zip(sums, learn.model.parameters()): s += share*p.grad
            for s, p in zip(sums, learn.model.parameters()): p.grad = s
            return total
        return in_parts

@pytest.mark.parametrize('make', [hand_made, in_torch])
def test_gradients_accumulated_over_parts_are_those_of_the_batch(few, make):
    learns = []
    for callbacks in ([], [Accumulate(24)]):
        torch.manual_seed(0)
        learn = make(first(few), *callbacks, generator=torch.Generator().manual_seed(0))
        learn.fit(2)
        learns.append(learn)
    whole, parts = learns
    assert whole.history[-1] == pytest.approx(parts.history[-1], rel=1e-4)
    for p, q in zip(whole.model.parameters(), parts.model.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)

def test_the_rows_of_a_batch_may_be_picked_otherwise(few):
    "In turn from the other end; the last callback is asked."
    class Backward(Callback):
        def wrap_batch(self, learn, batch): return lambda rows: batch(127 - rows)
    seen = []
    class Look(Callback):
        def before_batch(self, learn): seen.append((learn.x.clone(), learn.y.clone()))
    data = first(few)
    learn = hand_made(data, Backward(), Look(), generator=torch.Generator().manual_seed(5))
    learn.fit(1)
    g = torch.Generator().manual_seed(5)
    order = 127 - torch.randperm(128, generator=g)
    assert torch.equal(torch.cat([x for x, _ in seen]), data.x_train[order])
    assert torch.equal(torch.cat([y for _, y in seen]), data.y_train[order])

@pytest.mark.parametrize('step, n_steps', [(-1, 4), (1.5, 4), (True, 4), (0, -4), (0, '4')])
def test_a_state_has_steps_that_can_be_counted(few, step, n_steps):
    learn = momentum_learner(first(few))
    learn.fit(2)
    state = deepcopy(learn.state_dict())
    state['training'] |= dict(step=step, n_steps=n_steps)
    with pytest.raises(ValueError, match='training: (n_)?step'): learn.load_state_dict(state)

def test_steps_are_wrapped_once_a_fit_after_before_fit_the_last_one_outermost(few):
    log = []
    class Wraps(Points):
        def wrap_step(self, learn, step):
            self.log.append(f'{self.name}wrap')
            def wrapped(x, y):
                self.log.append(f'{self.name}step')
                return step(x, y)
            return wrapped
    learn = hand_made(first(few, 64), Wraps(log, 'a '), Wraps(log, 'b '))
    learn.fit(1)
    assert log[:8] == ['a before_fit', 'b before_fit', 'a wrap', 'b wrap',
                       'a before_epoch', 'b before_epoch', 'a before_batch',
                       'b before_batch']
    assert log[8:10] == ['b step', 'a step']
    log.clear()
    learn.callbacks.clear()
    learn.fit(1) # nothing of the wrapping is left on the learner
    assert log == []

def test_predictions_are_wrapped_and_evaluation_uses_them(few):
    class Plus(Callback):
        def __init__(self, number): self.number = number
        def wrap_predict(self, learn, predict):
            return lambda x: 10*predict(x) + self.number
    learn = hand_made(first(few))
    plain = learn.predict(few.x_valid[:5])
    learn.callbacks = [Plus(1), Plus(2)]
    wrapped = learn.predict(few.x_valid[:5])
    torch.testing.assert_close(wrapped, 10*(10*plain + 1) + 2)
    expected = CrossEntropy()(wrapped, few.y_valid[:5]).item()
    assert learn.evaluate(few.x_valid[:5], few.y_valid[:5])['loss'] == expected


# ---- evaluation and history

def test_predict_is_in_evaluation_mode_without_gradients_and_in_pieces():
    net = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5))
    learn = in_torch(numbered_rows(), net=net)
    net.train()
    x = learn.data.x_train
    scores = learn.predict(x)
    assert torch.equal(scores, learn.predict(x))
    assert not scores.requires_grad and net.training # it is put back
    pieces = []
    net.register_forward_pre_hook(lambda _, inputs: pieces.append(len(inputs[0])))
    assert len(learn.predict(torch.zeros(10_001, 6))) == 10_001
    assert pieces == [10_000, 1]

def test_evaluate_agrees_with_pytorch_and_gives_plain_numbers(few):
    learn = hand_made(few)
    learn.metrics = {'top': lambda scores, y: scores.max()}
    found = learn.evaluate(few.x_valid, few.y_valid)
    scores = learn.model(few.x_valid)
    assert found == pytest.approx({'loss': F.cross_entropy(scores, few.y_valid).item(),
                                   'top': scores.max().item()}, rel=1e-5)
    assert [type(value) for value in found.values()] == [float, float]

def test_a_row_of_the_history_has_as_many_rows_for_training_as_for_validation():
    learn = in_torch(numbered_rows(), net=nn.Linear(6, 3), lr=1e-6, bs=16)
    learn.fit(2)
    row = learn.history[-1]
    g = torch.Generator().manual_seed(0)
    rows = torch.randperm(100, generator=g)[:9] # not the first, which may be all alike
    train = learn.evaluate(learn.data.x_train[rows], learn.data.y_train[rows])
    valid = learn.evaluate(*learn.data[2:])
    assert row == {'epoch': 2, 'lr': 1e-6,
                   'train_loss': train['loss'], 'train_accuracy': train['accuracy'],
                   'valid_loss': valid['loss'], 'valid_accuracy': valid['accuracy']}
    assert list(row)[:2] == ['epoch', 'lr'] and row['train_loss'] != row['valid_loss']

def test_history_draws_loss_and_metrics(few):
    learn = hand_made(first(few))
    learn.fit(2)
    learn.history.plot()
    axes = plt.gcf().axes
    titles = [ax.get_title() or ax.get_title('left') for ax in axes]
    assert titles == ['loss', 'accuracy']
    for ax, key in zip(axes, ('loss', 'accuracy')):
        assert [line.get_label() for line in ax.lines] == ['training', 'validation']
        assert [list(line.get_xdata()) for line in ax.lines] == [[1, 2]]*2
        for line, part in zip(ax.lines, ('train', 'valid')):
            expected = [row[f'{part}_{key}'] for row in learn.history]
            assert list(line.get_ydata()) == expected
        assert ax.get_xlabel() == 'epoch'
        assert all(tick == round(tick) for tick in ax.get_xticks())
    assert axes[0].get_legend() is not None

def test_an_empty_history_cannot_be_drawn():
    with pytest.raises(ValueError, match='plot: epochs is 0, expected an integer'):
        History().plot()


# ---- the schedule

def with_rates(data, *callbacks, shape=one_cycle):
    rates = Rates()
    model = network()
    groups = [{'params': p, 'lr': 0.1*(i+1)} for i, p in enumerate(model.parameters())]
    learn = Learner(model, data, SGD(groups, lr=1), CrossEntropy(), bs=32,
                    callbacks=[Schedule(shape), rates, *callbacks])
    return learn, rates.seen

def test_the_schedule_sets_every_rate_and_puts_the_peaks_back(few):
    learn, seen = with_rates(first(few))
    learn.fit(5)
    assert seen == [0.1*one_cycle(step, 20) for step in range(20)]
    assert [g['lr'] for g in learn.opt.param_groups] == [0.1*(i+1) for i in range(4)]
    assert all('peak_lr' not in g for g in learn.opt.param_groups)

def test_the_schedule_keeps_the_ratio_of_the_groups(few):
    ratios = []
    class Ratio(Callback):
        def before_step(self, learn):
            groups = learn.opt.param_groups
            ratios.append(groups[3]['lr']/groups[0]['lr'])
    learn, _ = with_rates(first(few), Ratio())
    learn.fit(1)
    assert ratios == pytest.approx([4]*4)

def test_the_schedule_starts_again_in_a_new_fit(few):
    learn, seen = with_rates(first(few))
    learn.fit(5)
    learn.fit(5)
    assert seen[20:] == seen[:20]
    assert learn.epoch == 5 and len(learn.history) == 10
    assert [learn.history[6][key] for key in ('epoch', 'lr')] == [7, seen[27]]

def test_a_stopped_fit_resumes_with_the_right_rates(few):
    through, expected = with_rates(first(few))
    through.fit(5)
    learn, seen = with_rates(first(few), StopAt(3, 2))
    learn.fit(5)
    assert [learn.epoch, learn.batch, learn.step, learn.done] == [3, 2, 14, False]
    assert learn.opt.param_groups[0]['lr'] == 0.1
    learn.callbacks.pop()
    learn.fit()
    assert seen == expected

def test_a_schedule_may_have_any_shape(few):
    learn, seen = with_rates(first(few), shape=lambda step, n_steps: step/n_steps)
    learn.fit(1)
    assert seen == pytest.approx([0., 0.025, 0.05, 0.075])


# ---- progress

class Bar:
    "Stands for tqdm: remembers what it was told."
    made = []
    def __init__(self, **settings):
        self.settings = settings
        self.updates = 0
        self.postfixes = []
        self.closed = 0
        Bar.made.append(self)
    def update(self):
        self.updates += 1
        return self.updates == 2 # as if it were redrawn then, and only then
    def set_postfix(self, **values): self.postfixes.append(values)
    def close(self): self.closed += 1

@pytest.fixture
def bars(monkeypatch):
    monkeypatch.setattr(fcnet.learner, 'Bar', Bar)
    monkeypatch.setattr(fcnet.learner, 'bars_are_seen', lambda: True)
    Bar.made.clear()
    return Bar.made

def test_there_is_a_bar_for_each_epoch(few, bars):
    learn = hand_made(first(few), Progress(), bs=32)
    learn.fit(2)
    assert len(bars) == 2
    assert [bar.settings['desc'] for bar in bars] == ['epoch 1', 'epoch 2']
    assert [bar.settings['total'] for bar in bars] == [4, 4]
    assert [bar.settings['initial'] for bar in bars] == [0, 0]
    assert [bar.updates for bar in bars] == [4, 4]
    assert all(bar.closed for bar in bars)

def test_the_bar_shows_the_loss_when_it_is_redrawn(few, bars):
    losses = []
    class Losses(Callback):
        def after_batch(self, learn): losses.append(learn.batch_loss)
    hand_made(first(few), Losses(), Progress(), bs=32).fit(1)
    assert bars[0].postfixes == [{'loss': f'{losses[1]:.4f}'}]

def test_a_resumed_epoch_starts_in_the_middle_of_the_bar(few, bars):
    learn = hand_made(first(few), Progress(), StopAt(1, 3), bs=32)
    learn.fit(2)
    assert bars[-1].closed
    learn.callbacks.pop()
    learn.fit()
    assert [bar.settings['initial'] for bar in bars] == [0, 0, 3]
    assert bars[-1].settings['desc'] == 'epoch 2' and bars[-1].updates == 1

def test_a_quiet_learner_says_nothing(few, bars, capsys):
    progress = Progress()
    progress.quiet = True
    hand_made(first(few), progress).fit(1)
    assert not bars and capsys.readouterr().out == ''

@pytest.mark.parametrize('notebook, terminal, off, seen', [
    (False, True, False, True), (True, False, False, True), (False, False, False, False),
    (True, True, True, False)])
def test_where_bars_are_seen(monkeypatch, notebook, terminal, off, seen):
    class Stream:
        def isatty(self): return terminal
    monkeypatch.setattr(fcnet.learner, 'IN_NOTEBOOK', notebook)
    monkeypatch.setattr(fcnet.learner.sys, 'stderr', Stream())
    monkeypatch.delenv('TQDM_DISABLE', raising=False)
    if off: monkeypatch.setenv('TQDM_DISABLE', '')
    assert bars_are_seen() == seen

def test_no_bar_where_there_is_no_stderr(monkeypatch):
    monkeypatch.setattr(fcnet.learner, 'IN_NOTEBOOK', False)
    monkeypatch.setattr(fcnet.learner.sys, 'stderr', None)
    assert not bars_are_seen()

def test_no_bar_is_made_where_none_is_seen(few, bars, monkeypatch, capsys):
    monkeypatch.setattr(fcnet.learner, 'bars_are_seen', lambda: False)
    hand_made(first(few), Progress()).fit(1)
    assert not bars and capsys.readouterr().out != ''

@pytest.mark.parametrize('seen', [True, False])
def test_a_killed_sibling_does_not_stop_the_others(few, monkeypatch, seen):
    context = multiprocessing.get_context('fork')
    monkeypatch.setattr(tqdm, '_lock', context.RLock(), raising=False)
    monkeypatch.setattr(fcnet.learner, 'bars_are_seen', lambda: seen)
    def killed():
        tqdm.get_lock().acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    def trains():
        torch.set_num_threads(1) # more of them, forked, would hang
        signal.alarm(20)
        hand_made(first(few), Progress()).fit(1)
    for job, code in ((killed, -signal.SIGKILL), (trains, 0)):
        process = context.Process(target=job)
        process.start()
        process.join()
        assert process.exitcode == code

def test_a_bar_that_was_never_opened_need_not_be_closed(few):
    class Fails(Callback):
        def before_fit(self, learn): raise RuntimeError('first')
    with pytest.raises(RuntimeError, match='first'):
        hand_made(first(few), Fails(), Progress()).fit(1)

def test_the_line_after_an_epoch_has_all_its_numbers_and_no_others(few, capsys):
    learn = hand_made(first(few), Progress())
    learn.fit(2)
    row = learn.history[-1]
    names = ('train_loss', 'train_accuracy', 'valid_loss', 'valid_accuracy')
    numbers = [f'{name.replace("_", " ")} {row[name]:.4f}' for name in names]
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == '  '.join(['epoch 2/2', *numbers])
    assert lines[0].startswith('epoch 1/2  train loss ') and len(lines) == 2


# ---- the state of a run

def momentum_learner(data, *callbacks, seed=0, make=SGD, **settings):
    if make is SGD: settings = {'momentum': 0.9, **settings}
    g = torch.Generator().manual_seed(seed)
    model = network(seed)
    opt = make(model.parameters(), lr=0.1, **settings)
    return Learner(model, data, opt, CrossEntropy(), callbacks=[Schedule(), *callbacks],
                   generator=g)

def same_state(a, b):
    assert a.keys() == b.keys()
    assert a['training'] == b['training']
    for name in a.keys() - {'training'}: assert torch.equal(a[name], b[name]), name

def test_the_names_in_a_state(few):
    learn = momentum_learner(first(few), StopAt(1, 1))
    assert list(learn.state_dict()) == [
        'model.0.w', 'model.0.b', 'model.2.w', 'model.2.b', 'random.0', 'random.1',
        'training']
    learn.fit(2)
    state = learn.state_dict()
    assert list(state) == [
        'model.0.w', 'model.0.b', 'model.2.w', 'model.2.b', 'random.0', 'random.1',
        'order', *(f'opt.{i}.momentum_buffer' for i in range(4)), 'training']
    assert state['training'] == {
        'kind': {'optimizer': 'SGD',
                 'settings': [{'dampening': 0, 'momentum': 0.9, 'weight_decay': 0.}],
                 'batch size': 64, 'training rows': 128,
                 'callbacks': ['Schedule', 'StopAt']},
        'step': 3, 'n_steps': 4, 'history': list(learn.history), 'opt_state': {},
        'rates': [[0.1, None]]}
    assert torch.equal(state['random.1'], learn.generator.get_state())
    assert torch.equal(state['random.0'], torch.get_rng_state())

def test_numbers_of_the_optimizer_are_kept_as_numbers(few):
    learn = momentum_learner(first(few), make=Adam)
    learn.fit(1)
    state = learn.state_dict()
    assert state['training']['opt_state'] == {f'opt.{i}.step': 2 for i in range(4)}
    assert 'opt.0.exp_avg' in state and 'opt.0.step' not in state

def test_no_tensor_of_a_state_wants_gradients(few):
    learn = in_torch(first(few))
    learn.fit(1)
    for name, t in learn.state_dict().items():
        if name != 'training': assert not t.requires_grad and t.grad is None

def test_a_state_can_be_put_into_another_learner(few):
    data = first(few)
    learn = momentum_learner(data, StopAt(1, 1))
    learn.fit(2)
    other = momentum_learner(data, StopAt(1, 1), seed=1)
    other.load_state_dict(learn.state_dict())
    same_state(other.state_dict(), learn.state_dict())

def test_nothing_is_shared_with_a_state_that_was_put_back(few):
    learn = momentum_learner(first(few), StopAt(1, 1))
    learn.fit(2)
    state = learn.state_dict()
    before = deepcopy(state)
    other = momentum_learner(first(few), StopAt(1, 1), seed=1)
    other.load_state_dict(state)
    other.fit()
    other.history[0]['lr'] = 5
    other.order = None
    same_state(state, before)
    same_state(learn.state_dict(), before)

def test_the_history_stays_a_history(few):
    learn = momentum_learner(first(few))
    learn.fit(1)
    other = momentum_learner(first(few), seed=1)
    history = other.history
    other.load_state_dict(learn.state_dict())
    assert other.history is history and isinstance(history, History)
    assert len(history) == 1

@pytest.mark.parametrize('change, words', [
    (dict(make=AdamW), "'optimizer': 'SGD'.*'optimizer': 'AdamW'"),
    (dict(momentum=0.5), "'momentum': 0.9.*'momentum': 0.5")])
def test_a_learner_of_another_kind_refuses_a_state(few, change, words):
    learn = momentum_learner(first(few))
    learn.fit(1)
    other = momentum_learner(first(few), **change)
    before = deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=words):
        other.load_state_dict(learn.state_dict())
    same_state(other.state_dict(), before)

def test_runs_of_version_0_1_0_know_callbacks_by_their_old_names(few):
    callback = type('EarlyStopping', (Callback,), {})
    learn = momentum_learner(first(few), callback())
    state = deepcopy(learn.state_dict())
    state['training']['kind']['callbacks'] = ['Schedule', 'KeepBest']
    momentum_learner(first(few), callback(), seed=1).load_state_dict(state)
    with pytest.raises(ValueError, match="the run had .*'EarlyStopping'"):
        momentum_learner(first(few), seed=1).load_state_dict(state)

def test_another_learning_rate_is_not_another_kind(few):
    learn = hand_made(first(few), lr=0.1)
    other = hand_made(first(few), lr=0.2)
    other.load_state_dict(learn.state_dict())
    assert other.opt.param_groups[0]['lr'] == 0.1

def test_unknown_names_in_a_state_are_refused(few):
    learn = momentum_learner(first(few))
    state = learn.state_dict() | {'more': torch.zeros(1)}
    with pytest.raises(ValueError, match='more is torch.float32 .*expected nothing'):
        learn.load_state_dict(state)

def test_a_state_without_a_training_run_is_refused(few):
    with pytest.raises(ValueError, match='holds no training run'):
        momentum_learner(first(few)).load_state_dict({})

@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError])
def test_loading_is_all_or_nothing(few, error, monkeypatch):
    learn = momentum_learner(first(few), StopAt(1, 1))
    learn.fit(2)
    other = momentum_learner(first(few), StopAt(1, 1), seed=1)
    other.fit(1)
    before = deepcopy(other.state_dict())
    def interrupted(*args, **kwargs): raise error('on the way')
    monkeypatch.setattr(SGD, 'update', interrupted) # in the step that is tried last
    with pytest.raises(error, match='on the way'):
        other.load_state_dict(learn.state_dict())
    same_state(other.state_dict(), before)

def test_a_learner_with_nan_weights_stays_as_it_is_if_loading_fails(few):
    learn = momentum_learner(first(few))
    state = deepcopy(learn.state_dict())
    state['training']['rates'] = [[None, None]]
    other = momentum_learner(first(few), seed=1)
    other.model.layers[0].b[3] = math.nan
    with pytest.raises((TypeError, ValueError)): other.load_state_dict(state)
    assert other.model.layers[0].b[3].isnan() and not other.model.layers[0].b[2].isnan()
    assert other.opt.param_groups[0]['lr'] == 0.1

def test_a_step_that_would_end_in_nan_is_refused(few):
    learn = momentum_learner(first(few))
    learn.fit(1)
    state = deepcopy(learn.state_dict())
    state['opt.0.momentum_buffer'] = torch.full((784, 50), 3e38)
    state['training']['rates'] = [[1e9, None]]
    other = momentum_learner(first(few), seed=1)
    before = deepcopy(other.state_dict())
    with pytest.raises(ValueError, match='0.w is .*not finite'):
        other.load_state_dict(state)
    same_state(other.state_dict(), before)

def test_the_step_that_is_tried_leaves_no_trace(few):
    learn = momentum_learner(first(few), make=Adam)
    learn.fit(1)
    other = momentum_learner(first(few), seed=1, make=Adam)
    other.load_state_dict(learn.state_dict())
    assert other.state_dict()['training']['opt_state']['opt.0.step'] == 2
    assert all(p.grad is None for p in other.model.parameters())

def test_after_a_finished_run_the_rate_is_the_users(few):
    class Save(Callback):
        def after_epoch(self, learn): self.state = deepcopy(learn.state_dict())
    save = Save()
    done = momentum_learner(first(few), save)
    done.fit(1)
    assert save.state['training']['rates'][0][1] == 0.1 # in the fit: rate and peak
    rates = Rates()
    again = momentum_learner(first(few), Save(), seed=1)
    again.opt.param_groups[0]['peak_lr'] = 7 # of a fit that was never cleaned up
    again.load_state_dict(save.state)
    assert again.opt.param_groups[0]['lr'] == 0.1
    assert 'peak_lr' not in again.opt.param_groups[0]
    again.opt.param_groups[0]['lr'] = 0.001
    again.callbacks.append(rates)
    again.fit(1)
    assert rates.seen == [0.001*one_cycle(step, 2) for step in range(2)]

def test_a_schedule_goes_on_from_the_peak(few):
    class Save(Callback):
        def after_batch(self, learn):
            if learn.step == 1: self.state = deepcopy(learn.state_dict())
    save = Save()
    momentum_learner(first(few), save).fit(1)
    other = momentum_learner(first(few), Save(), seed=1)
    other.load_state_dict(save.state)
    group = other.opt.param_groups[0]
    assert group['lr'] == 0.1 and 'peak_lr' not in group
    rates = Rates()
    other.callbacks.append(rates)
    other.fit()
    assert rates.seen == [0.1*one_cycle(1, 2)]

def test_generators_of_layers_and_callbacks_are_found_once_each(few):
    g = torch.Generator()
    class Draws(Callback):
        def __init__(self, generator): self.generator = generator
    learn = momentum_learner(first(few), Draws(g), Draws(None), Draws('no generator'))
    learn.model.layers[1].generator = g
    names = [name for name in learn.state_dict() if name.startswith('random.')]
    assert names == ['random.0', 'random.1', 'random.2']

def test_the_global_generator_of_a_gpu_is_found_and_comes_last(few, monkeypatch):
    card = torch.Generator().manual_seed(77)
    learn = momentum_learner(first(few))
    monkeypatch.setattr(Learner, 'device', torch.device('cuda', 0))
    monkeypatch.setattr(torch.cuda, 'default_generators', (card,))
    assert torch.equal(learn.state_dict()['random.2'], card.get_state())

def test_check_tensors_accepts_what_is_expected():
    three = {'w': torch.ones(3), 'n': torch.tensor(3)}
    check_tensors(three, deepcopy(three))
    check_tensors({'w': torch.ones(3)}, {'w': torch.full((3,), math.nan)})

@pytest.mark.parametrize('words, given', [
    ('w is nothing, expected torch.float32 .3,.', {}),
    ('w is torch.float32 .2,., expected torch.float32 .3,.', {'w': torch.ones(2)}),
    ('w is torch.float32 .3, 1., expected', {'w': torch.ones(3, 1)}),
    ('w is torch.float64 .3,., expected', {'w': torch.ones(3).double()}),
    ('w is torch.float32 .3,., not finite, expected', {'w': torch.ones(3)/0}),
    ('w is .*not finite', {'w': torch.tensor([1, math.nan, 1])}),
    ('b is torch.int64 .., expected nothing',
     {'w': torch.ones(3), 'b': torch.tensor(1)})])
def test_check_tensors_names_what_is_wrong(words, given):
    with pytest.raises(ValueError, match=words):
        check_tensors(given, {'w': torch.ones(3)})
