"Tests of `fcnet.fuse`: a plan gives the numbers of the layers and of the optimizer."
import copy
import math
import pickle
import warnings
import pytest
import torch
from fcnet.classify import CrossEntropy, OneHotMSE
from fcnet.data import Data
from fcnet.deep import GELU, BatchNorm, LayerNorm, Normalize, Residual
from fcnet.diagnose import ClipGradients
from fcnet.fuse import Fuse, Plan, fastest_precision
from fcnet.layers import MSE, Linear, Module, ReLU, Sequential, Sigmoid, Tanh
from fcnet.learner import Callback, Learner, Schedule
from fcnet.nn_module import MLP
from fcnet.optim import SGD, Adam, AdamW, decay_groups
from fcnet.regularize import Dropout, MaxNorm

N_IN, N_OUT = 20, 4

def make_data(dtype=torch.float64, classes=True, n=310):
    "310 rows: batches of 32 leave one of 22."
    g = torch.Generator().manual_seed(1)
    x = torch.randn(n+50, N_IN, generator=g, dtype=dtype)
    scores = x@torch.randn(N_IN, N_OUT, generator=g, dtype=dtype)
    y = scores.argmax(1) if classes else scores
    return Data(x[:n], y[:n], x[n:], y[n:])

def layers_of(name, g):
    def linear(n_in, n_out, **settings): return Linear(n_in, n_out, generator=g, **settings)
    again = linear(13, 13)
    norm = LayerNorm(13)
    return {
        'one layer': [linear(20, 4)],
        'relu': [linear(20, 13), ReLU(), linear(13, 4)],
        'relu first': [ReLU(), linear(20, 4)],
        'deep': [linear(20, 13), ReLU(), linear(13, 9), Tanh(), linear(9, 8), Sigmoid(),
                 linear(8, 4)],
        'no bias': [linear(20, 13, bias=False), ReLU(), linear(13, 4, bias=False)],
        'activations in a chain': [linear(20, 13), Sigmoid(), ReLU(), Tanh(), GELU(),
                                   linear(13, 4)],
        'dropout': [Dropout(0.2, generator=g), linear(20, 13), ReLU(),
                    Dropout(0.5, generator=g), linear(13, 4)],
        'dropout of sums': [linear(20, 13), Dropout(0.3, generator=g), Tanh(),
                            Dropout(0.), linear(13, 4)],
        'residual': [linear(20, 13), ReLU(),
                     Residual([linear(13, 13), ReLU(), linear(13, 13)]),
                     Residual([Tanh(), linear(13, 13)]),
                     Residual([linear(13, 13), ReLU()]), linear(13, 4)],
        'residual first': [Residual([linear(20, 20), ReLU()]), linear(20, 4)],
        'nested': [Sequential([linear(20, 13), Sequential([ReLU()])]), linear(13, 4)],
        'norms': [BatchNorm(20), linear(20, 13), GELU(), LayerNorm(13), ReLU(),
                  Residual([LayerNorm(13), linear(13, 13), GELU()]), linear(13, 4)],
        'norm of sums': [linear(20, 13), BatchNorm(13), ReLU(), linear(13, 13),
                         LayerNorm(13), GELU(), linear(13, 4)],
        'normalized': [Normalize(0.3, 1.7), linear(20, 13), Normalize(torch.linspace(-1, 1, 13)),
                       ReLU(), linear(13, 4)],
        'used twice': [linear(20, 13), again, ReLU(), again, norm, again, norm,
                       linear(13, 4)],
    }[name]

NETS = ['one layer', 'relu', 'relu first', 'deep', 'no bias', 'activations in a chain',
        'dropout', 'dropout of sums', 'residual', 'residual first', 'nested', 'norms',
        'norm of sums', 'normalized', 'used twice']

OPTS = {'SGD': lambda p: SGD(p, lr=0.1),
        'momentum': lambda p: SGD(p, lr=0.02, momentum=0.9, weight_decay=0.01),
        'Adam': lambda p: Adam(p, lr=0.01, weight_decay=0.01),
        'AdamW': lambda p: AdamW(p, lr=0.01, weight_decay=0.1),
        "PyTorch's": lambda p: torch.optim.AdamW(p, lr=0.01)}

LOSSES = {'cross-entropy': CrossEntropy,
          'smoothed': lambda: CrossEntropy(label_smoothing=0.1),
          'weighted': lambda: CrossEntropy(0.1, weight=[1, 2, 3, 0.5]), 'mse': MSE,
          'one-hot': OneHotMSE}

def make(fused, net='relu', opt='SGD', loss='cross-entropy', dtype=torch.float64,
         groups=False, callbacks=(), bs=32):
    "A learner; the same for the same arguments, but for `fused`."
    g = torch.Generator().manual_seed(3)
    model = Sequential(layers_of(net, g)).to(dtype)
    params = decay_groups(model, 0.05) if groups else model.parameters()
    callbacks = [*([Fuse('highest')] if fused else []), Schedule(), *callbacks]
    return Learner(model, make_data(dtype, loss != 'mse'), OPTS[opt](params),
                   LOSSES[loss](), bs=bs, callbacks=callbacks, metrics={}, generator=g)

def scores_after(learn, epochs):
    learn.fit(epochs)
    return learn.predict(learn.data.x_valid)

def assert_same(fused, plain, rtol):
    error = (fused - plain).norm()/plain.norm()
    assert error < rtol, error.item()

# ---- the same numbers

@pytest.mark.parametrize('opt', OPTS)
def test_500_steps_are_those_of_the_layers(opt):
    ends = [scores_after(make(fused, 'dropout', opt), 50) for fused in (True, False)]
    assert_same(*ends, 1e-8) # rounding grows with the steps

@pytest.mark.parametrize('opt', ['momentum', 'AdamW'])
@pytest.mark.parametrize('net', NETS)
def test_every_layer_has_its_numbers(net, opt):
    ends = [scores_after(make(fused, net, opt), 3) for fused in (True, False)]
    assert_same(*ends, 1e-9)

@pytest.mark.parametrize('opt', OPTS)
@pytest.mark.parametrize('loss', LOSSES)
def test_losses_and_groups(loss, opt):
    ends = [scores_after(make(fused, 'deep', opt, loss, groups=True), 3)
            for fused in (True, False)]
    assert_same(*ends, 1e-10)

@pytest.mark.parametrize('net', NETS)
def test_float32(net):
    ends = [scores_after(make(fused, net, dtype=torch.float32), 3)
            for fused in (True, False)]
    assert_same(*ends, 1e-4)

@pytest.mark.parametrize('net', NETS)
@pytest.mark.parametrize('loss', ['cross-entropy', 'mse'])
def test_gradients_of_a_step(net, loss):
    class Keep(Callback):
        def before_step(self, learn):
            self.grads = [p.grad.clone() for p in learn.model.parameters()]
            self.loss = learn.batch_loss
            learn.stopped = True
    kept = []
    for fused in (True, False):
        keep = Keep()
        make(fused, net, loss=loss, callbacks=[keep]).fit(1)
        kept.append(keep)
    assert kept[0].loss == pytest.approx(kept[1].loss, rel=1e-12)
    for fused, plain in zip(kept[0].grads, kept[1].grads, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-9, atol=1e-12)

def test_history_and_buffers_are_the_same():
    learners = [make(fused, 'norms') for fused in (True, False)]
    for learn in learners: learn.fit(3)
    fused, plain = learners
    for a, b in zip(fused.history, plain.history, strict=True):
        assert a == pytest.approx(b, rel=1e-9)
    for name, tensor in plain.model.state_dict().items():
        torch.testing.assert_close(fused.model.state_dict()[name], tensor,
                                   rtol=1e-7, atol=1e-9)

def test_other_batch_sizes_data_and_dtypes_between_fits():
    ends = []
    for fused in (True, False):
        learn = make(fused, opt='momentum')
        learn.fit(2)
        learn.bs = 50
        learn.fit(1)
        learn.data = make_data(n=100)
        learn.fit(1)
        learn.model.to(torch.float32)
        learn.opt = SGD(learn.model.parameters(), lr=0.1)
        learn.data = make_data(torch.float32)
        ends.append(scores_after(learn, 1))
    assert_same(*ends, 1e-5)

# ---- callbacks and optimizers that change things

class Halve(Callback):
    "Put other gradients where the old ones were."
    def before_step(self, learn):
        for p in learn.model.parameters(): p.grad = p.grad/2

class Freeze(Callback):
    "Leave the first parameter as it is, in every other step."
    def before_step(self, learn):
        if learn.step % 2: learn.model.parameters()[0].grad = None

@pytest.mark.parametrize('opt', OPTS)
@pytest.mark.parametrize('callback', [Halve, Freeze, lambda: ClipGradients(0.1),
                                      lambda: MaxNorm(0.5)])
def test_what_callbacks_do(callback, opt):
    ends = [scores_after(make(fused, opt=opt, callbacks=[callback()]), 3)
            for fused in (True, False)]
    assert_same(*ends, 1e-9)

def test_a_scheduler_of_pytorch_sees_its_steps():
    class Scheduler(Callback):
        def before_fit(self, learn):
            self.inner = torch.optim.lr_scheduler.ExponentialLR(learn.opt, 0.9)
        def after_batch(self, learn): self.inner.step()
    ends = []
    with warnings.catch_warnings(action='error'):
        for fused in (True, False):
            learn = make(fused)
            learn.callbacks = [c for c in learn.callbacks if type(c) is not Schedule]
            learn.callbacks.insert(0, Scheduler())
            ends.append(scores_after(learn, 2))
    assert_same(*ends, 1e-12)

def test_parameters_that_the_optimizer_does_not_hold():
    ends = []
    for fused in (True, False):
        learn = make(fused)
        w = learn.model.parameters()[0]
        before = w.clone()
        learn.opt = SGD(learn.model.parameters()[1:], lr=0.1)
        ends.append(scores_after(learn, 2))
        assert torch.equal(w, before) and w.grad is not None
    assert_same(*ends, 1e-12)

def test_steps_of_adam_are_counted():
    learn = make(True, opt='Adam')
    learn.fit(2)
    assert {state['step'] for state in learn.opt.state.values()} == {20}

# ---- stopping and resuming

@pytest.mark.parametrize('opt', OPTS)
@pytest.mark.parametrize('net', ['dropout', 'norms'])
def test_resume_is_the_same_to_the_last_bit(net, opt, tmp_path):
    class Stop(Callback):
        def after_batch(self, learn): learn.stopped = learn.step == 13
    through = make(True, net, opt, dtype=torch.float32)
    through.fit(3)
    stopped = make(True, net, opt, dtype=torch.float32)
    stopped.callbacks.append(Stop())
    stopped.fit(3)
    stopped.callbacks.pop()
    stopped.save(tmp_path/'run.safetensors')
    resumed = make(True, net, opt, dtype=torch.float32)
    resumed.load(tmp_path/'run.safetensors')
    resumed.fit()
    for a, b in zip(through.model.parameters(), resumed.model.parameters()):
        assert torch.equal(a, b)

def test_a_resumed_run_keeps_its_products(tmp_path):
    learn = make(True, dtype=torch.float32)
    learn.callbacks[0] = Fuse()
    learn.fit(1)
    learn.callbacks[0].chosen = 'medium' # whatever was measured
    learn.save(tmp_path/'run.safetensors')
    other = make(True, dtype=torch.float32)
    other.callbacks[0] = Fuse()
    other.load(tmp_path/'run.safetensors')
    other.fit(1)
    assert other.callbacks[0].chosen == 'medium'

def test_nothing_is_left_after_a_fit():
    learn = make(True, 'dropout')
    learn.fit(1)
    loss = learn.batch_loss
    assert math.isfinite(loss)
    assert pickle.loads(pickle.dumps(learn)).batch_loss == loss
    assert copy.deepcopy(learn).batch_loss == loss
    assert torch.get_float32_matmul_precision() == 'highest'

# ---- faults

def test_a_loss_that_is_not_finite():
    learn = make(True)
    learn.opt = SGD(learn.model.parameters(), lr=1e300)
    with pytest.raises(FloatingPointError, match='weights or loss .* epoch 1'):
        learn.fit(1)

@pytest.mark.parametrize('label', [-1, 4])
@pytest.mark.parametrize('row', [0, 50, 100, 300])
def test_a_wrong_label(label, row):
    ended = []
    class End(Callback):
        def after_fit(self, learn): ended.append(True)
    learn = make(True, callbacks=[End()])
    learn.data.y_train[row] = label
    with pytest.raises(ValueError, match='targ runs from .* expected classes 0 to 3'):
        learn.fit(1)
    assert ended # every callback has been told

def test_shapes_and_dtypes_that_do_not_fit():
    learn = make(True)
    learn.data = Data(*[t[:,:19] if t.dim() == 2 else t for t in learn.data])
    with pytest.raises(ValueError, match=r'x has shape \(32, 19\)'): learn.fit(1)
    learn = make(True)
    learn.data = Data(*[t.float() if t.dim() == 2 else t for t in learn.data])
    with pytest.raises(ValueError, match='x is torch.float32'): learn.fit(1)

class Mine(ReLU):
    "A layer that no rule is known for."

class MyLoss(CrossEntropy):
    "A loss that no rule is known for."
    def __repr__(self): return 'MyLoss()'

@pytest.mark.parametrize('change, reason', [
    (lambda learn: learn.model.layers.insert(1, Mine()), r'Mine\(\) has no rule'),
    (lambda learn: setattr(learn, 'loss', MyLoss()), r'MyLoss\(\) has no rule'),
    (lambda learn: learn.model.layers[0].to(torch.float32), 'differ in dtype')])
def test_what_has_no_plan_is_computed_by_the_layers(change, reason):
    learn = make(True)
    change(learn)
    learn.opt = SGD(learn.model.parameters(), lr=0.1)
    with pytest.warns(UserWarning, match=f'Fuse: .*{reason}') as said:
        if 'dtype' in reason:
            with pytest.raises(ValueError): learn.fit(1) # so say the layers
        else: learn.fit(2)
    assert len(said) == 1

def test_an_nn_module_is_trained_by_autograd():
    net = MLP([20, 13, 4]).double()
    loss = torch.nn.functional.cross_entropy
    learn = Learner(net, make_data(), torch.optim.SGD(net.parameters(), lr=0.1), loss,
                    callbacks=[Fuse(), Schedule()])
    with pytest.warns(UserWarning, match='the model is an nn.Module'): learn.fit(1)
    assert learn.history[-1]['valid_loss'] < 1.5

def test_another_step_before_it_is_refused():
    class Own(Callback):
        def wrap_step(self, learn, step): return lambda x, y: step(x, y)
    learn = make(True)
    learn.callbacks.insert(0, Own())
    with pytest.raises(ValueError, match='expected Fuse first'): learn.fit(1)

def test_precision_is_a_known_one():
    with pytest.raises(ValueError, match="precision is 'low'"): Fuse('low')

@pytest.mark.parametrize('chosen', ['auto', 'low', 3.5, None])
def test_a_state_with_another_precision_is_refused(chosen):
    with pytest.raises(ValueError, match='chosen is'):
        Fuse().load_state_dict({'chosen': chosen})

# ---- plans and products

def test_a_plan_is_printed_call_by_call():
    model = Sequential([Linear(5, 3), ReLU(), Linear(3, 2)])
    grads = {p: torch.zeros_like(p) for p in model.parameters()}
    x = torch.randn(7, 5)
    y = torch.tensor([0, 1, 1, 0, 1, 0, 1])
    plan = Plan(model, CrossEntropy(), x, y, grads)
    assert [text for _, text in plan.lines] == [
        'out = x@w + b', 'out = relu(x)', 'out = x@w + b', 'grad = softmax(scores)',
        'grad /= n', 'grad[i,y[i]] -= 1/n', 'd_w = x.t()@grad', 'd_b = grad.sum(0)',
        'd_x = grad@w.t()', 'grad = relu_grad(grad, out)', 'd_w = x.t()@grad',
        'd_b = grad.sum(0)']
    assert len(str(plan).splitlines()) == len(plan.calls)
    # batch and targets, hidden, scores and their gradients, a column for the labels
    assert plan.n_bytes == 4*7*5 + 8*7 + 4*7*(3 + 2 + 2 + 3) + 4*7
    plan.run(x, y)
    loss = CrossEntropy()(model(x), y)
    assert plan.item() == pytest.approx(loss.item(), rel=1e-6)

def test_buffers_are_made_once():
    learn = make(True)
    seen = []
    class Look(Callback):
        def after_batch(self, learn):
            seen.append({p.grad.data_ptr() for p in learn.model.parameters()})
    learn.callbacks.append(Look())
    learn.fit(2)
    assert all(found == seen[0] for found in seen)

class Replace(Callback):
    "Some batches are others, or of another type, or only a part of the rows."
    def __init__(self, how): self.how = how
    def before_batch(self, learn):
        if learn.step % 3 == 0: return
        if self.how == 'other': learn.x = learn.x*2
        if self.how == 'same memory': learn.x *= 2
        if self.how == 'fewer':
            learn.x = learn.x[::2]
            learn.y = learn.y[::2]
        if self.how == 'labels': learn.y = learn.y.flip(0)

@pytest.mark.parametrize('how', ['other', 'same memory', 'fewer', 'labels'])
def test_a_callback_may_replace_the_batch(how):
    ends = [scores_after(make(fused, callbacks=[Replace(how)]), 3)
            for fused in (True, False)]
    assert_same(*ends, 1e-9)

def test_a_batch_of_another_type_is_refused_as_by_the_layers():
    class Narrow(Callback):
        def before_batch(self, learn):
            if learn.step == 4: learn.x = learn.x.float()
    with pytest.raises(ValueError, match='x is torch.float32'):
        make(True, callbacks=[Narrow()]).fit(1)

def test_batches_and_data_are_not_changed():
    learn = make(True)
    before = [t.clone() for t in learn.data]
    learn.fit(2)
    assert all(torch.equal(t, b) for t, b in zip(learn.data, before))

def test_the_batches_of_an_epoch_share_memory():
    learn = make(True)
    seen = []
    class Look(Callback):
        def before_batch(self, learn): seen.append(learn.x.data_ptr())
    learn.callbacks.append(Look())
    learn.fit(3) # ten batches an epoch, the last one smaller
    assert len(set(seen[10:])) == 2

def test_the_fastest_precision_is_float32():
    before = torch.get_float32_matmul_precision()
    assert fastest_precision([(64, 784, 50)]) in ('highest', 'medium')
    assert fastest_precision([(64, 784, 50)], error=0.) == 'highest' # nothing is exact
    assert fastest_precision([(64, 784, 50)], gain=0.) == 'highest' # nor free
    assert torch.get_float32_matmul_precision() == before
