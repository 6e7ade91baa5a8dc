"Distorted and noisy digits: each setting does what it says, draws are the right ones."
import inspect
import math

import pytest
import torch
import torch.nn.functional as F

from fcnet.augment import (Distort, Noise, distort, random_affine, random_field,
                           random_uniform)
from fcnet.classify import CrossEntropy
from fcnet.data import Data
from fcnet.layers import Linear, ReLU, Sequential
from fcnet.learner import Callback, Learner, Schedule
from fcnet.nn_module import MLP
from fcnet.optim import SGD

NAN = float('nan')
NOTHING = dict(rotate=0., scale=0., shear=0., shift=0., alpha=0.)
NO_MAP = dict(rotate=0., scale=0., shear=0., shift=0.)

def seeded(seed): return torch.Generator().manual_seed(seed)

# ---- distort

def test_distort_without_any_distortion_changes_nothing(few):
    x = few.x_train[:8]
    torch.testing.assert_close(distort(x, **NOTHING), x, rtol=1e-4, atol=1e-4)

def test_distort_draws_from_its_generator(few):
    x = few.x_train[:8]
    g = seeded(5)
    one = distort(x, g)
    assert torch.equal(one, distort(x, seeded(5)))
    assert (distort(x, g) - one).norm() > 1

def test_distort_without_a_generator_draws_from_torch(few):
    x = few.x_train[:8]
    torch.manual_seed(5)
    one = distort(x)
    torch.manual_seed(5)
    assert torch.equal(distort(x), one)

def test_distort_gives_each_digit_its_own_distortion(few):
    one, two = distort(few.x_train[:1].expand(2, -1))
    assert (one - two).norm() > 1

def test_distort_leaves_its_input_alone(few):
    x = few.x_train[:8]
    before = x.clone()
    distort(x)
    assert torch.equal(x, before)

def test_distort_fetches_the_edge_from_outside(few):
    white = torch.ones(3, 784)
    torch.testing.assert_close(distort(white, shift=9.), white)

def test_distort_of_doubles_is_the_same_distortion(few):
    x = few.x_train[:100]
    double = distort(x.double(), seeded(8))
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), distort(x, seeded(8)), rtol=0, atol=0.01)

@pytest.mark.parametrize('shape', [(8, 28, 28), (784,), (8, 783)])
def test_distort_refuses_other_shapes(shape):
    words = r'distort: x has shape .*, expected \(n, 784\)'
    with pytest.raises(ValueError, match=words):
        distort(torch.zeros(shape))

@pytest.mark.parametrize('name', ['rotate', 'scale', 'shear', 'shift', 'alpha'])
@pytest.mark.parametrize('value', [-1., NAN])
def test_distort_refuses_a_negative_strength(name, value):
    with pytest.raises(ValueError, match=f'distort: {name} is .*, expected at least 0'):
        distort(torch.zeros(1, 784), **{name: value})

@pytest.mark.parametrize('sigma', [0, -1., NAN])
def test_distort_refuses_a_sigma_that_is_not_above_0(sigma):
    with pytest.raises(ValueError, match='distort: sigma is .*, expected above 0'):
        distort(torch.zeros(1, 784), sigma=sigma)

@pytest.mark.parametrize('f', [distort, random_affine, random_field])
def test_default_strengths(f):
    defaults = {p.name: p.default for p in inspect.signature(f).parameters.values()}
    expected = dict(generator=None, rotate=10., scale=0.1, shear=0.1, shift=1.,
                    alpha=34., sigma=4.)
    assert defaults.pop('x') is inspect.Parameter.empty
    assert defaults == {name: expected[name] for name in defaults}

# ---- each setting does what it says: center of mass, size, angle

def moments(x):
    "Centers of mass along x and y, and the width, in pixels."
    ink = (x - x.min()).view(-1, 28, 28).double()
    i = torch.arange(28.).double()
    total = ink.sum((1, 2))
    cx = (ink.sum(1)*i).sum(1)/total
    cy = (ink.sum(2)*i).sum(1)/total
    width = ((ink.sum(1)*(i-cx[:,None])**2).sum(1)/total).sqrt()
    return cx, cy, width

def test_shift_moves_the_center_of_mass(few):
    x = few.x_train[:500]
    moved = distort(x, seeded(0), **{**NOTHING, 'shift': 2.})
    moves = torch.cat([a-b for a, b in zip(moments(moved)[:2], moments(x)[:2])])
    assert moves.abs().max() < 2.2
    assert 0.9 < moves.std() < 1.4 # uniform from -2 to 2: 1.15

def test_scale_stretches_and_squeezes(few):
    x = few.x_train[:500]
    wide = distort(x, seeded(0), **{**NOTHING, 'scale': 0.3})
    widths = moments(x)[2]
    ratio = (moments(wide)[2]/widths)[widths > 3] # ones are too thin to measure
    assert 1.2 < ratio.max() < 1.4 and 0.7 < ratio.min() < 0.85

def test_rotate_turns_to_both_sides():
    bar = torch.zeros(28, 28)
    bar[4:24, 13:15] = 1
    turned = distort(bar.view(1, 784).expand(50, -1), seeded(0),
                     **{**NOTHING, 'rotate': 30.})
    tops = turned.view(-1, 28, 28)[:,4:6].argmax(2).float().mean(1) - 13.5
    assert 3 < tops.abs().max() < 7
    assert tops.min() < -1.5 and tops.max() > 1.5

def test_shear_slants_to_both_sides():
    bar = torch.zeros(28, 28)
    bar[4:24, 13:15] = 1
    slanted = distort(bar.view(1, 784).expand(50, -1), seeded(0),
                      **{**NOTHING, 'shear': 0.3}).view(-1, 28, 28)
    tops = slanted[:,4:6].argmax(2).float().mean(1) - 13.5
    assert 1.5 < tops.abs().max() <= 0.3*9 + 1
    assert tops.min() < -1 and tops.max() > 1
    middle = slanted[:,13:15].argmax(2).float().mean(1) - 13.5
    assert middle.abs().max() < 1 # rows stay rows, and the middle stays

def test_random_affine_number_by_number():
    g = seeded(3)
    angle, shear, move, zoom = (torch.rand(shape, generator=g)*2 - 1
                                for shape in ((2,), (2,), (2, 2), (2, 2)))
    x = torch.zeros(2, 1, 28, 28)
    maps = random_affine(x, seeded(3), rotate=30., scale=0.3, shear=0.2, shift=2.)
    assert maps.shape == (2, 2, 3)
    for i in (0, 1):
        a = math.radians(30*angle[i].item())
        sh = 0.2*shear[i].item()
        zx, zy = (1.3**v for v in zoom[i].tolist())
        c = math.cos(a)
        s = math.sin(a)
        mx, my = (v*2*2/28 for v in move[i].tolist())
        expected = [[c*zx, c*sh - s*zy, mx], [s*zx, s*sh + c*zy, my]]
        torch.testing.assert_close(maps[i], torch.tensor(expected))

def test_random_field_has_the_size_of_a_smoothed_uniform_field():
    field = random_field(torch.zeros(200, 1, 28, 28), seeded(0), alpha=34., sigma=4.)
    assert field.shape == (200, 28, 28, 2)
    pixels = field[:,10:18,10:18]*14
    # a Gaussian of sigma pixels leaves 1/(2 sigma sqrt(pi)) of the std, which is
    # 1/sqrt(3) for numbers from -1 to 1
    std = 34/3**0.5/(2*4*math.pi**0.5)
    assert abs(pixels.std()/std - 1) < 0.1

@pytest.mark.parametrize('sigma', [1., 4.])
def test_random_field_is_a_gaussian_blur_of_its_draws(sigma):
    g = seeded(0)
    field = random_field(torch.zeros(1, 1, 28, 28), g, alpha=3., sigma=sigma)
    noise = (torch.rand((2, 28, 28), generator=seeded(0))*2 - 1).double()
    i = torch.arange(28).double()
    here = (14, 9) # row, column
    weights = (torch.exp(-(i-here[0])**2/(2*sigma**2))[:,None]
               *torch.exp(-(i-here[1])**2/(2*sigma**2))/(2*math.pi*sigma**2))
    expected = (noise*weights).sum((1, 2))*3/14
    torch.testing.assert_close(field[0][here].double(), expected, rtol=1e-4, atol=1e-6)

def test_distorted_ramps_show_the_field_along_x_and_along_y():
    i = torch.arange(28.)
    ramps = torch.stack([i.expand(28, 28), i[:,None].expand(28, 28)])
    moved = distort(ramps.view(2, 784), seeded(7), **NO_MAP).view(2, 28, 28)
    g = seeded(7)
    random_affine(ramps, g)
    field = random_field(ramps, g)*14 # in pixels
    inside = slice(6, 22)
    for k in (0, 1):
        found = (moved - ramps)[k,inside,inside]
        expected = field[k,inside,inside,k]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)

def test_random_uniform_covers_its_range():
    values = random_uniform((100, 100), torch.zeros(1, dtype=torch.float64), seeded(0))
    assert values.dtype == torch.float64 and values.shape == (100, 100)
    assert -1 <= values.min() < -0.99 and 0.99 < values.max() <= 1
    assert abs(values.mean()) < 0.02 and abs(values.std() - 3**-0.5) < 0.02

# ---- callbacks

class Seen(Callback):
    "The last batch, as the model gets it."
    def before_batch(self, learn):
        self.x = learn.x
        self.y = learn.y

def one_batch(data, *callbacks):
    "What the model is given, and the same rows as they were."
    some = Data(*(t[:64] for t in data))
    net = MLP([784, 5, 10])
    seen = Seen()
    learn = Learner(net, some, SGD(net.parameters(), lr=0.1), F.cross_entropy,
                    callbacks=[*callbacks, seen], generator=seeded(2))
    learn.fit(1)
    rows = torch.randperm(64, generator=seeded(2))
    assert torch.equal(seen.y, some.y_train[rows])
    return seen.x, some.x_train[rows], learn

def test_distort_callback_does_as_the_function(few):
    x, before, _ = one_batch(few, Distort(seeded(1), rotate=20.))
    assert torch.equal(x, distort(before, seeded(1), rotate=20.))

def test_distort_callback_without_settings_uses_defaults_and_torchs_generator(few):
    class Mark(Callback): # after the model is built, and before the batch
        def before_batch(self, learn): self.state = torch.get_rng_state()
    mark = Mark()
    x, before, _ = one_batch(few, mark, Distort())
    torch.set_rng_state(mark.state)
    assert torch.equal(x, distort(before))

@pytest.mark.parametrize('Kind', [Distort, Noise])
def test_history_is_about_digits_as_they_are(few, Kind):
    *_, learn = one_batch(few, Kind())
    clean = learn.evaluate(few.x_train[:64], few.y_train[:64])['loss']
    assert learn.history[-1]['train_loss'] == pytest.approx(clean, rel=1e-5)

class Batch:
    "The part of a learner that these callbacks use."
    def __init__(self, x): self.x = x

def test_noise_has_mean_0_its_std_and_is_drawn_anew():
    batch = Batch(torch.zeros(1000, 100))
    noise = Noise(0.5, seeded(3))
    noise.before_batch(batch)
    one = batch.x
    assert abs(one.std() - 0.5) < 0.01 and abs(one.mean()) < 0.01
    noise.before_batch(batch) # added to what is there: a variance of 0.5
    assert abs(batch.x.std() - 0.5**0.5) < 0.01
    assert abs((one*(batch.x-one)).mean()) < 0.01

def test_noise_is_that_of_its_generator():
    batch = Batch(torch.ones(6, 5))
    Noise(0.3, seeded(3)).before_batch(batch)
    expected = 1 + 0.3*torch.randn(6, 5, generator=seeded(3))
    torch.testing.assert_close(batch.x, expected)

def test_noise_of_doubles_from_torchs_generator():
    batch = Batch(torch.zeros(100, 100, dtype=torch.float64))
    torch.manual_seed(4)
    Noise().before_batch(batch)
    torch.manual_seed(4)
    assert batch.x.dtype == torch.float64
    torch.testing.assert_close(batch.x, 0.5*torch.randn(100, 100).double())

def test_noise_leaves_the_training_data_alone(few):
    x, before, learn = one_batch(few, Noise(0.5))
    assert (x - before).std() > 0.4
    assert torch.equal(learn.data.x_train, few.x_train[:64])

@pytest.mark.parametrize('std', [-0.1, NAN])
def test_noise_refuses_a_negative_std(std):
    with pytest.raises(ValueError, match='Noise: std is .*, expected at least 0'):
        Noise(std)

@pytest.mark.parametrize('Kind', [Distort, Noise])
def test_generator_is_part_of_the_runs_state(few, Kind):
    g = seeded(9)
    *_, learn = one_batch(few, Kind(generator=g))
    states = [t for name, t in learn.state_dict().items() if name.startswith('random.')]
    assert any(torch.equal(state, g.get_state()) for state in states)

# ---- what the lesson says, in single runs

@pytest.mark.slow
def test_distortion_helps_a_network_with_few_digits(digits):
    found = []
    for callbacks in ([], [Distort(seeded(1))]):
        g = seeded(1)
        hidden = Linear(784, 50, generator=g)
        model = Sequential([hidden, ReLU(), Linear(50, 10, std=0.02, generator=g)])
        opt = SGD(model.parameters(), lr=0.2, momentum=0.5)
        data = Data(digits.x_train[:1000], digits.y_train[:1000],
                    digits.x_valid[:100], digits.y_valid[:100])
        learn = Learner(model, data, opt, CrossEntropy(),
                        callbacks=[Schedule(), *callbacks], generator=g)
        learn.fit(15)
        found.append(learn.evaluate(digits.x_valid, digits.y_valid)['accuracy'])
    assert found[1] > found[0] + 0.015
