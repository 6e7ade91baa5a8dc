"The optimizers beside PyTorch's, and what they need of PyTorch's base class."
import copy
import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler

from fcnet.classify import CrossEntropy
from fcnet.layers import Linear, ReLU, Sequential
from fcnet.nn_module import MLP
from fcnet.optim import SGD, Adam, AdamW, Rule, decay_groups, one_cycle

OURS = [SGD, Adam, AdamW]
SETTINGS = [
    ('SGD', dict()),
    ('SGD', dict(momentum=0.9)),
    ('SGD', dict(weight_decay=0.1)),
    ('SGD', dict(momentum=0.9, weight_decay=0.1)),
    ('Adam', dict()),
    ('Adam', dict(betas=(0.8, 0.95), eps=0.1, weight_decay=0.1)),
    ('Adam', dict(betas=(0., 0.))),
    ('AdamW', dict(betas=(0.8, 0.95), weight_decay=0.)),
    ('AdamW', dict(betas=(0.8, 0.95), weight_decay=0.1)),
]

def pair(name):
    "Our class of this name, and PyTorch's."
    return globals()[name], getattr(torch.optim, name)

def same_steps(ours, theirs, steps=100, tol=1e-12, lr=0.05, **settings):
    "Assert that two classes make the same steps on the same gradients, in float64."
    g = torch.Generator().manual_seed(0)
    def random(*shape): return torch.randn(shape, generator=g, dtype=torch.float64)
    start = [random(5, 3), random(3)]
    mine = [t.clone() for t in start]
    yours = [t.clone() for t in start]
    opts = [ours(mine, lr=lr, **settings), theirs(yours, lr=lr, **settings)]
    for _ in range(steps):
        for p, q in zip(mine, yours):
            p.grad = random(*p.shape)
            q.grad = p.grad.clone()
        for opt in opts: opt.step()
        for p, q in zip(mine, yours):
            torch.testing.assert_close(p, q, rtol=tol, atol=tol)
    assert (mine[0] - start[0]).norm() > 1e-3

def make(cls, params, **settings):
    return cls(params, **{'lr': 0.1, **settings})

# ---- the steps ----

@pytest.mark.parametrize('name, settings', SETTINGS)
def test_steps_are_pytorchs(name, settings):
    same_steps(*pair(name), **settings)

def test_comparison_of_steps_sees_a_rate_off_by_a_billionth():
    def slightly_off(params, lr): return torch.optim.SGD(params, lr=lr*(1+1e-9))
    with pytest.raises(AssertionError): same_steps(SGD, slightly_off)

def test_weight_decay_of_adam_is_not_that_of_adamw():
    with pytest.raises(AssertionError):
        same_steps(Adam, torch.optim.AdamW, weight_decay=0.1)

@pytest.mark.parametrize('signs, velocities', [
    ([1, 1, 1, 1], [1, 1.9, 2.71, 3.439]),
    ([1, -1, 1, -1], [1, -0.1, 0.91, -0.181])])
def test_velocity_by_hand(signs, velocities):
    p = torch.zeros(1)
    opt = SGD([p], lr=1., momentum=0.9)
    for sign, velocity in zip(signs, velocities):
        p.grad = torch.tensor([float(sign)])
        opt.step()
        assert opt.state[p]['momentum_buffer'].item() == pytest.approx(velocity)

@pytest.mark.parametrize('lr, arrives', [(0.07, True), (0.074, False)])
def test_limit_of_the_rate_with_momentum(lr, arrives):
    # 2*(1+momentum) over the steepness: 0.072
    steepness = torch.tensor([1., 50.])
    p = torch.tensor([-10., 1.])
    opt = SGD([p], lr=lr, momentum=0.8)
    for _ in range(100):
        p.grad = steepness*p
        opt.step()
    assert p.norm() < 1e-2 if arrives else p.norm() > 10

@pytest.mark.parametrize('cls', [Adam, AdamW])
def test_step_of_adam_is_the_rate_for_any_constant_gradient(cls):
    p = torch.zeros(2)
    opt = cls([p], lr=0.1)
    for _ in range(3):
        p.grad = torch.tensor([100., 0.01])
        opt.step()
    torch.testing.assert_close(p, torch.tensor([-0.3, -0.3]))

def test_decay_of_adamw_ignores_the_size_of_gradients():
    ends = {}
    for cls in (Adam, AdamW):
        p = torch.ones(2)
        opt = cls([p], lr=0.01, weight_decay=0.1)
        for step in range(100):
            p.grad = (-1)**step*torch.tensor([10., 0.01])
            opt.step()
        ends[cls] = p.tolist()
    assert ends[AdamW] == pytest.approx([0.999**100]*2, abs=0.02)
    assert ends[Adam][0] > 0.97
    assert ends[Adam][1] < 0.5

@pytest.mark.parametrize('settings', [dict(), dict(weight_decay=0.1),
                                      dict(momentum=0.9),
                                      dict(momentum=0.9, weight_decay=0.1)])
def test_sgd_leaves_the_gradient_as_it_was(settings):
    p = torch.ones(2)
    p.grad = torch.ones(2)
    opt = SGD([p], lr=0.1, **settings)
    for _ in range(2): opt.step()
    assert p.grad.tolist() == [1, 1]

@pytest.mark.parametrize('cls', [Adam, AdamW])
def test_adam_leaves_the_gradient_as_it_was(cls):
    p = torch.ones(2)
    p.grad = torch.ones(2)
    opt = cls([p], weight_decay=0.1)
    for _ in range(2): opt.step()
    assert p.grad.tolist() == [1, 1]

@pytest.mark.parametrize('momentum, weight_decay', [(0.5, 0.), (0.5, 0.1)])
def test_velocity_has_memory_of_its_own(momentum, weight_decay):
    p = torch.zeros(2)
    opt = SGD([p], lr=1., momentum=momentum, weight_decay=weight_decay)
    p.grad = torch.ones(2)
    opt.step()
    v = opt.state[p]['momentum_buffer']
    assert v.data_ptr() != p.grad.data_ptr()
    p.grad.zero_() # must not reach the velocity
    assert v.tolist() == [1, 1]
    opt.step()
    expected = -1 - (0.5 + weight_decay*-1)
    torch.testing.assert_close(p, torch.full((2,), expected))

@pytest.mark.parametrize('cls', [Adam, AdamW])
def test_averages_of_adam_have_memory_of_their_own(cls):
    p = torch.zeros(2)
    opt = cls([p], betas=(0., 0.))
    p.grad = torch.ones(2)
    opt.step()
    p.grad.zero_()
    assert opt.state[p]['exp_avg'].tolist() == [1, 1]
    assert opt.state[p]['exp_avg_sq'].tolist() == [1, 1]

@pytest.mark.parametrize('cls', OURS)
def test_parameter_is_changed_in_place(cls):
    p = torch.ones(2)
    address = p.data_ptr()
    opt = make(cls, [p], weight_decay=0.1)
    p.grad = torch.ones(2)
    opt.step()
    assert p.data_ptr() == address
    assert p[0] < 1

# ---- groups, closures, settings ----

def test_groups_have_settings_of_their_own():
    a = torch.ones(2)
    b = torch.ones(2)
    opt = SGD([{'params': [a]}, {'params': [b], 'lr': 10.}], lr=1.)
    a.grad = torch.ones(2)
    b.grad = torch.ones(2)
    opt.step()
    assert a.tolist() == [0, 0]
    assert b.tolist() == [-9, -9]

@pytest.mark.parametrize('cls', OURS)
def test_parameter_without_a_gradient_stays(cls):
    moved = torch.ones(2)
    still = torch.ones(2)
    opt = make(cls, [moved, still], weight_decay=0.1)
    moved.grad = torch.ones(2)
    opt.step()
    assert still.tolist() == [1, 1]
    assert moved[0] < 1
    assert still not in opt.state

@pytest.mark.parametrize('cls', [Adam, AdamW])
def test_steps_are_counted_for_each_parameter(cls):
    early = torch.zeros(2)
    late = torch.zeros(2)
    opt = cls([early, late], lr=0.1)
    early.grad = torch.ones(2)
    opt.step()
    late.grad = torch.ones(2)
    opt.step()
    assert [opt.state[p]['step'] for p in (early, late)] == [2, 1]
    torch.testing.assert_close(late, torch.full((2,), -0.1))

@pytest.mark.parametrize('cls', [SGD, torch.optim.SGD])
def test_closure_computes_loss_and_gradients_first(cls):
    p = torch.ones(2, requires_grad=True)
    opt = cls([p], lr=0.1)
    def closure():
        opt.zero_grad()
        loss = p.pow(2).sum()
        loss.backward()
        return loss
    with torch.no_grad(): # the closure needs gradients all the same
        assert opt.step(closure).item() == 2
    assert opt.step() is None
    torch.testing.assert_close(p.detach(), torch.full((2,), 0.6)) # twice 0.1*2

def test_step_is_not_recorded_by_autograd():
    p = torch.ones(2, requires_grad=True)
    for cls in OURS:
        opt = make(cls, [p])
        p.pow(2).sum().backward()
        opt.step()
        assert p.is_leaf
        assert p.requires_grad
        for value in opt.state[p].values():
            assert not getattr(value, 'requires_grad', False)

@pytest.mark.parametrize('cls, settings, words', [
    (SGD, dict(lr=-1), 'SGD: lr is -1, expected at least 0'),
    (SGD, dict(lr=math.nan), 'SGD: lr is nan'),
    (SGD, dict(lr=math.inf), 'SGD: lr is inf'),
    (SGD, dict(lr='fast'), "SGD: lr is 'fast'"),
    (SGD, dict(lr=1, momentum=1),
     'SGD: momentum is 1, expected at least 0 and below 1'),
    (SGD, dict(lr=1, momentum=-0.1), 'SGD: momentum is -0.1'),
    (SGD, dict(lr=1, weight_decay=-1), 'SGD: weight_decay is -1'),
    (Adam, dict(lr=-1), 'Adam: lr is -1'),
    (AdamW, dict(lr=-1), 'AdamW: lr is -1'),
    (AdamW, dict(weight_decay=-1), 'AdamW: weight_decay is -1, expected at least 0'),
    (Adam, dict(betas=(1., 0.9)), 'Adam: beta1 is 1.0, expected .* below 1'),
    (Adam, dict(betas=(0.9, 1.)), 'Adam: beta2 is 1.0, expected .* below 1'),
    (Adam, dict(betas=(-0.1, 0.9)), 'Adam: beta1 is -0.1'),
    (Adam, dict(betas=(0.9, -0.1)), 'Adam: beta2 is -0.1'),
    (Adam, dict(eps=-1), 'Adam: eps is -1, expected at least 0')])
def test_setting_out_of_range_is_named(cls, settings, words):
    with pytest.raises(ValueError, match=words): cls([torch.ones(2)], **settings)

@pytest.mark.parametrize('cls', OURS)
@pytest.mark.parametrize('lr', [-0.1, math.nan, 'fast'])
def test_settings_of_every_group_are_checked(cls, lr):
    words = f'^{cls.__name__}: lr is .*, expected at least 0$'
    group = {'params': [torch.ones(1)], 'lr': lr}
    with pytest.raises(ValueError, match=words): cls([group], lr=0.1)
    opt = cls([torch.ones(1)], lr=0.1)
    with pytest.raises(ValueError, match=words): opt.add_param_group(group)

@pytest.mark.parametrize('betas', [0.9, (0.9,), [0.9, 0.9, 0.9], 'ab', None])
def test_betas_are_two_numbers(betas):
    with pytest.raises((TypeError, ValueError), match='unpack|beta1 is'):
        Adam([torch.ones(1)], betas=betas)

@pytest.mark.parametrize('cls', OURS)
@pytest.mark.parametrize('model', [
    Sequential([Linear(3, 4)]), Linear(3, 4), nn.Linear(3, 4),
    nn.Sequential(nn.Linear(3, 4), nn.ReLU())])
def test_a_model_is_not_its_parameters(cls, model):
    with pytest.raises(TypeError, match='is not iterable|can only optimize Tensors'):
        cls(model, 0.1)

def test_a_misspelt_setting_of_a_group_is_named():
    words = '^SGD: wieght_decay is 1.0, expected no settings but lr, momentum'
    with pytest.raises(ValueError, match=words):
        SGD([{'params': [torch.ones(1)], 'wieght_decay': 1.}], lr=0.1)
    SGD([{'params': [torch.ones(1)], 'name': 'head'}], lr=0.1) # a name is no setting

@pytest.mark.parametrize('cls', OURS)
@pytest.mark.parametrize('kind', [np.float32, np.float64, np.float16])
def test_numbers_of_numpy_are_numbers(cls, kind):
    p = torch.ones(3)
    opt = cls([{'params': [p], 'weight_decay': kind(0.5)}], lr=kind(0.25))
    for name in ('lr', 'weight_decay'): assert type(opt.param_groups[0][name]) is float
    p.grad = torch.ones(3)
    opt.step()
    assert p.dtype == torch.float32
    assert cls([p], lr=np.int64(1)).param_groups[0]['lr'] == 1

@pytest.mark.parametrize('cls', OURS)
def test_rate_of_zero_changes_nothing(cls):
    p = torch.ones(2)
    p.grad = torch.ones(2)
    make(cls, [p], lr=0, weight_decay=0.5).step()
    assert p.tolist() == [1, 1]

def test_adam_takes_an_eps_of_zero():
    same_steps(Adam, torch.optim.Adam, eps=0.)

@pytest.mark.parametrize('name', ['SGD', 'Adam', 'AdamW'])
def test_defaults_are_pytorchs_but_for_decay(name):
    rate = {'lr': 1.} if name == 'SGD' else {}
    ours, theirs = (cls([torch.ones(2)], **rate).defaults for cls in pair(name))
    for key in ours.keys() - {'weight_decay'}: assert ours[key] == theirs[key]
    assert ours['weight_decay'] == 0

def test_rule_without_an_update_says_so():
    class Lazy(Rule):
        def __init__(self, params): super().__init__(params, {})
    p = torch.ones(2)
    p.grad = torch.ones(2)
    with pytest.raises(NotImplementedError, match='Lazy.update'): Lazy([p]).step()

# ---- what PyTorch's base class does for us ----

@pytest.mark.parametrize('cls', OURS)
def test_hooks_are_called_once_before_and_after_a_step(cls):
    p = torch.ones(2)
    p.grad = torch.ones(2)
    opt = make(cls, [p])
    seen = []
    opt.register_step_pre_hook(lambda opt, args, kwargs: seen.append(p[0].item()))
    after = opt.register_step_post_hook(
        lambda opt, args, kwargs: seen.append(p[0].item()))
    opt.step()
    assert len(seen) == 2
    assert seen[0] == 1
    assert seen[1] == p[0].item() < 1
    after.remove()
    opt.step()
    assert len(seen) == 3

@pytest.mark.parametrize('first, second', [(Adam, AdamW), (AdamW, Adam)])
def test_hooks_of_a_subclass_are_called_once(first, second):
    p = torch.ones(2)
    p.grad = torch.ones(2)
    for cls in (first, second):
        calls = []
        opt = cls([p])
        opt.register_step_post_hook(lambda *_: calls.append(1))
        opt.step()
        assert calls == [1]

@pytest.mark.parametrize('name', ['SGD', 'Adam', 'AdamW'])
@pytest.mark.parametrize('schedule', [
    lambda opt: lr_scheduler.StepLR(opt, step_size=5, gamma=0.5),
    lambda opt: lr_scheduler.OneCycleLR(opt, 0.1, 20, cycle_momentum=False),
    lambda opt: lr_scheduler.ReduceLROnPlateau(opt, patience=3)])
def test_schedulers_of_pytorch_drive_our_optimizers(name, schedule):
    start = torch.randn(4, dtype=torch.float64)
    params = []
    rates = []
    for cls in pair(name):
        p = start.clone()
        opt = cls([p], lr=0.1, weight_decay=0.01)
        scheduler = schedule(opt)
        needs_metric = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
        rates.append([])
        for step in range(20):
            p.grad = 2*p
            opt.step()
            rates[-1].append(opt.param_groups[0]['lr'])
            if step < 19: scheduler.step(*([1.] if needs_metric else []))
        params.append(p)
    assert rates[0] == rates[1]
    assert len(set(rates[0])) > 1
    torch.testing.assert_close(params[0], params[1], rtol=1e-12, atol=1e-12)

def test_zero_grad_and_add_param_group():
    a = torch.ones(2)
    b = torch.ones(2)
    a.grad = torch.ones(2)
    opt = SGD([a], lr=1.)
    opt.add_param_group({'params': [b], 'lr': 2.})
    b.grad = torch.ones(2)
    opt.step()
    assert [a[0].item(), b[0].item()] == [0, -1]
    opt.zero_grad()
    assert a.grad is None and b.grad is None

@pytest.mark.parametrize('name, settings', [
    ('SGD', dict(lr=0.1, momentum=0.9, weight_decay=0.1)),
    ('SGD', dict(lr=0.1)),
    ('Adam', dict(lr=0.1, betas=(0.8, 0.9))),
    ('AdamW', dict(lr=0.1, weight_decay=0.1))])
@pytest.mark.parametrize('order', ['to PyTorch', 'from PyTorch', 'to ourselves'])
def test_state_handed_over_resumes_exactly(name, settings, order):
    ours, theirs = pair(name)
    first, second = {'to PyTorch': (ours, theirs), 'from PyTorch': (theirs, ours),
                     'to ourselves': (ours, ours)}[order]
    def random(*shape): return torch.randn(shape, dtype=torch.float64)
    a = [random(5, 3), random(3)]
    b = [t.clone() for t in a]
    opt = first(a, **settings)
    through = first(b, **settings) # the same without a break
    for step in range(20):
        if step == 10:
            state = opt.state_dict()
            opt = second(a, **settings)
            opt.load_state_dict(state)
        for p, q in zip(a, b):
            p.grad = random(*p.shape)
            q.grad = p.grad.clone()
        opt.step()
        through.step()
    for p, q in zip(a, b): torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)

def state_of(theirs, **settings):
    "The state of an optimizer of PyTorch's, after a step."
    p = torch.ones(3)
    opt = getattr(torch.optim, theirs)([p], lr=0.1, **settings)
    p.grad = torch.ones(3)
    opt.step()
    return opt.state_dict()

@pytest.mark.parametrize('cls, theirs, settings, named', [
    (SGD, 'SGD', dict(momentum=0.9, nesterov=True), 'SGD: nesterov is True'),
    (SGD, 'SGD', dict(momentum=0.9, dampening=0.5), 'SGD: dampening is 0.5'),
    (SGD, 'SGD', dict(maximize=True), 'SGD: maximize is True'),
    (SGD, 'RMSprop', {}, 'SGD: alpha is 0.99'),
    (Adam, 'Adam', dict(amsgrad=True), 'Adam: amsgrad is True'),
    (Adam, 'Adam', dict(maximize=True), 'Adam: maximize is True'),
    (AdamW, 'AdamW', dict(amsgrad=True), 'AdamW: amsgrad is True'),
    (Adam, 'AdamW', {}, 'Adam: decoupled_weight_decay is True'),
    (AdamW, 'Adam', {}, 'AdamW: decoupled_weight_decay is False'),
    (Adam, 'NAdam', {}, 'Adam: momentum_decay is 0.004')])
def test_a_state_with_settings_that_ours_do_not_know_is_refused(
        cls, theirs, settings, named):
    p = torch.ones(3)
    opt = cls([p], lr=0.3)
    with pytest.raises(ValueError, match=f'^{named}, expected [^\\n]*$'):
        opt.load_state_dict(state_of(theirs, **settings))
    assert opt.param_groups[0]['lr'] == 0.3 and not opt.state # as it was

@pytest.mark.parametrize('cls, theirs, settings', [
    (SGD, 'SGD', dict(foreach=True)), (SGD, 'SGD', dict(differentiable=False)),
    (Adam, 'Adam', dict(foreach=False, fused=None)), (AdamW, 'AdamW', {})])
def test_settings_that_change_no_step_are_taken(cls, theirs, settings):
    opt = cls([torch.ones(3)], lr=0.3)
    opt.load_state_dict(state_of(theirs, **settings))
    assert opt.param_groups[0]['lr'] == 0.1

@pytest.mark.parametrize('cls', OURS)
def test_what_others_keep_in_the_state_does_no_harm(cls):
    settings = dict(momentum=0.9) if cls is SGD else {}
    p = torch.ones(3)
    q = torch.ones(3)
    opts = [cls([t], lr=0.1, **settings) for t in (p, q)]
    opts[0].state[p]['note'] = torch.zeros(3)
    for _ in range(2):
        for t, opt in zip((p, q), opts):
            t.grad = torch.ones(3)
            opt.step()
    assert torch.equal(p, q)

@pytest.mark.parametrize('cls', OURS)
def test_a_part_of_the_layers_is_trained_alone(cls):
    model = Sequential([Linear(5, 4), ReLU(), Linear(4, 3)])
    before = copy.deepcopy(model.state_dict())
    for groups in (model.layers[2].parameters(), decay_groups(model.layers[2], 0.1),
                   decay_groups(Sequential(model.layers[2:]), 0.1)):
        opt = cls(groups, lr=0.1)
        loss = CrossEntropy()
        loss(model(torch.randn(7, 5)), torch.tensor([0, 1, 2, 0, 1, 2, 0]))
        model.backward(loss.backward())
        opt.step()
    same = [torch.equal(t, before[name]) for name, t in model.state_dict().items()]
    assert same == [True, True, False, False]

@pytest.mark.parametrize('duplicate', [copy.deepcopy,
                                       lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize('cls', OURS)
def test_copy_makes_the_same_next_step(cls, duplicate):
    p = torch.ones(3)
    p.grad = torch.tensor([1., 2., 3.])
    opt = make(cls, [p])
    opt.step()
    (q, twin) = duplicate((p, opt))
    assert twin.param_groups[0]['params'][0] is q
    q.grad = p.grad.clone()
    opt.step()
    twin.step()
    assert torch.equal(p, q)
    assert p.data_ptr() != q.data_ptr()

# ---- on both kinds of model ----

def test_ours_train_an_nn_module(few):
    net = MLP([784, 20, 10])
    opt = SGD(net.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for rows in torch.arange(640).repeat(3).split(64):
        opt.zero_grad()
        loss = F.cross_entropy(net(few.x_train[rows]), few.y_train[rows])
        loss.backward()
        opt.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]/2

@pytest.mark.parametrize('cls', [SGD, torch.optim.SGD])
def test_hand_written_layers_are_trained_by_either(few, cls):
    model = Sequential([Linear(784, 20), ReLU(), Linear(20, 10, std=0.02)])
    loss = CrossEntropy()
    opt = cls(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for rows in torch.arange(640).repeat(3).split(64):
        model.zero_grad()
        losses.append(loss(model(few.x_train[rows]), few.y_train[rows]).item())
        model.backward(loss.backward(), need_inp=False)
        opt.step()
    assert losses[-1] < losses[0]/2

def test_decay_groups_of_hand_written_layers():
    model = Sequential([Linear(7, 5), ReLU(), Linear(5, 3)])
    groups = decay_groups(model, 0.1)
    shapes = [[tuple(p.shape) for p in group['params']] for group in groups]
    assert shapes == [[(7, 5), (5, 3)], [(5,), (3,)]]
    assert [group['weight_decay'] for group in groups] == [0.1, 0]

def test_decay_groups_of_an_nn_module():
    model = nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.ReLU(),
                          nn.Linear(5, 3))
    groups = decay_groups(model, 0.1)
    shapes = [[tuple(p.shape) for p in group['params']] for group in groups]
    assert shapes == [[(5, 7), (3, 5)], [(5,), (5,), (5,), (3,)]]

def test_decay_groups_in_an_optimizer_leave_biases_alone():
    model = Sequential([Linear(3, 2)])
    layer = model.layers[0]
    layer.b += 1
    w = layer.w.clone()
    for p in model.parameters(): p.grad = torch.zeros_like(p)
    SGD(decay_groups(model, 0.5), lr=0.1).step()
    torch.testing.assert_close(layer.w, 0.95*w)
    assert layer.b.tolist() == [1, 1]

# ---- one-cycle ----

@pytest.mark.parametrize('n_steps', [2, 5, 10, 100, 781])
def test_one_cycle_is_pytorchs(n_steps):
    opt = SGD([torch.ones(1)], lr=1.)
    scheduler = lr_scheduler.OneCycleLR(opt, 1., n_steps, cycle_momentum=False)
    for step in range(n_steps):
        assert one_cycle(step, n_steps) == pytest.approx(opt.param_groups[0]['lr'],
                                                         rel=1e-9)
        opt.step()
        if step < n_steps-1: scheduler.step()

@pytest.mark.parametrize('n_steps', [1, 2, 3, 4])
def test_a_tiny_run_learns(n_steps):
    factors = [one_cycle(step, n_steps) for step in range(n_steps)]
    assert 0.75 < max(factors) <= 1 and factors[0] > 0.03

def test_one_cycle_by_hand():
    assert one_cycle(0, 100) == pytest.approx(1/25)
    assert one_cycle(29, 100) == pytest.approx(1)
    assert one_cycle(14.5, 100) == pytest.approx((1 + 1/25)/2)
    assert one_cycle(99, 100) == pytest.approx(4e-6)

# ---- what the lesson says of the optimizers, on small versions of its tables ----

def final_accuracy(digits, cls, lr, bs=64, hidden=(50,), factor=1., seed=2, **settings):
    "On 10,000 validation digits, after one pass over 10,000 digits with one-cycle."
    g = torch.Generator().manual_seed(seed)
    layers = []
    for n_in, n_out in zip((784, *hidden), hidden):
        layers.append(Linear(n_in, n_out, std=factor*(2/n_in)**0.5, generator=g))
        layers.append(ReLU())
    model = Sequential([*layers, Linear(hidden[-1], 10, std=0.02, generator=g)])
    loss = CrossEntropy()
    opt = cls(model.parameters(), lr=lr, **settings)
    batches = torch.randperm(10_000, generator=g).split(bs)
    for step, rows in enumerate(batches):
        model.zero_grad()
        loss(model(digits.x_train[rows]), digits.y_train[rows])
        model.backward(loss.backward(), need_inp=False)
        opt.param_groups[0]['lr'] = lr*one_cycle(step, len(batches))
        opt.step()
    right = model.forward(digits.x_valid).argmax(1) == digits.y_valid
    return right.float().mean().item()

@pytest.mark.slow
def test_momentum_moves_the_limit_of_the_rate_in_large_batches(digits):
    plain_low = final_accuracy(digits, SGD, 0.4, bs=1024)
    plain_high = final_accuracy(digits, SGD, 3.2, bs=1024)
    low = final_accuracy(digits, SGD, 0.04, bs=1024, momentum=0.9)
    high = final_accuracy(digits, SGD, 0.32, bs=1024, momentum=0.9)
    assert plain_high + 0.3 < plain_low < high
    assert low + 0.1 < high

@pytest.mark.slow
def test_small_batches_need_a_lower_rate(digits):
    assert (final_accuracy(digits, SGD, 0.4, bs=16)
            < final_accuracy(digits, SGD, 0.2, bs=16))
    assert (final_accuracy(digits, SGD, 0.4, bs=64)
            > final_accuracy(digits, SGD, 0.2, bs=64))

@pytest.mark.slow
def test_optimizers_are_equal_on_one_hidden_layer(digits):
    ends = [final_accuracy(digits, SGD, 0.27),
            final_accuracy(digits, SGD, 0.081, momentum=0.9),
            final_accuracy(digits, Adam, 0.0243)]
    assert min(ends) > 0.91
    assert max(ends) - min(ends) < 0.015

@pytest.mark.slow
def test_adam_is_ahead_where_gradients_start_out_small(digits):
    deep = dict(hidden=(30,)*6, factor=0.5)
    by_sgd = final_accuracy(digits, SGD, 0.81, **deep)
    by_momentum = final_accuracy(digits, SGD, 0.243, momentum=0.9, **deep)
    by_adam = final_accuracy(digits, Adam, 0.0081, **deep)
    assert by_adam - 0.1 > max(by_sgd, by_momentum)
