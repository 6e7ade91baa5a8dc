"Calibration, temperature, adversarial examples and training against them."
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar

from fcnet.classify import CrossEntropy, cross_entropy, softmax
from fcnet.layers import Linear, Module, ReLU, Sequential
from fcnet.learner import Learner
from fcnet.nn_module import MLP
from fcnet.optim import SGD
from fcnet.regularize import Dropout
from fcnet.trust import (Adversarial, calibration_error, fgsm, fit_temperature,
                         reliability)

# ten answers: six with confidence 0.95, of which five are right; four with 0.65, one
CONFIDENCE = torch.tensor([0.95]*6 + [0.65]*4)
TEN = torch.stack([1-CONFIDENCE, CONFIDENCE], 1)
TRUTH = torch.tensor([1]*5 + [0]*4 + [1])

def sampled():
    "Probabilities, and classes drawn with them: gaps of both signs."
    g = torch.Generator().manual_seed(0)
    p = softmax(3*torch.randn(500, 10, generator=g))
    drawn = torch.rand(500, 1, generator=g) < p.cumsum(1)
    return p, drawn.int().argmax(1)

class TestReliability:
    def test_two_bins_by_hand(self):
        n, confidence, accuracy = reliability(TEN, TRUTH)
        assert n.tolist() == [0, 0, 0, 0, 0, 0, 4, 0, 0, 6]
        torch.testing.assert_close(confidence[[6, 9]],
                                   torch.tensor([0.65, 0.95]).double())
        torch.testing.assert_close(accuracy[[6, 9]], torch.tensor([1/4, 5/6]).double())

    def test_empty_bins_are_nan(self):
        _, confidence, accuracy = reliability(TEN, TRUTH)
        assert confidence[:6].isnan().all() and accuracy[:6].isnan().all()

    def test_a_probability_of_zero_is_allowed(self):
        n, _, accuracy = reliability(torch.eye(2), torch.tensor([1, 1]))
        assert n.tolist() == [0]*9 + [2]
        assert accuracy[9] == 0.5

    @pytest.mark.parametrize('n_bins, expected', [
        (10, [0, 0, 1] + [0]*7), (2, [1, 0]), (1, [1])])
    def test_a_bin_holds_its_upper_end(self, n_bins, expected):
        edge = torch.tensor([[0.3, 0.3, 0.2, 0.2]])
        n, _, _ = reliability(edge, TRUTH[:1], n_bins)
        assert n.tolist() == expected

    def test_every_answer_is_in_a_bin(self):
        p, targ = sampled()
        n, confidence, accuracy = reliability(p, targ, 7)
        assert len(n) == 7 and n.sum() == 500
        torch.testing.assert_close((n*confidence).nansum(), p.amax(1).double().sum())
        assert (n*accuracy).nansum().round() == (p.argmax(1) == targ).sum()

    def test_sums_that_are_nearly_one_will_do(self):
        n, _, _ = reliability(1.0005*TEN, TRUTH)
        assert n.tolist() == [0, 0, 0, 0, 0, 0, 4, 0, 0, 6]

    @pytest.mark.parametrize('bad', [1.0015*TEN, 0.9985*TEN, 2*TEN, 2*TEN - 0.5,
                                     TEN[:0], TEN.log(), TEN*math.nan],
                             ids=['sum 1.0015', 'sum 0.9985', 'sum 2', 'negative',
                                  'no rows', 'logarithms', 'nan'])
    def test_rejects_what_is_not_a_probability(self, bad):
        with pytest.raises(ValueError, match='reliability: expected one or more rows'):
            reliability(bad, TRUTH[:len(bad)])

    @pytest.mark.parametrize('n_bins', [0, -1, 1.5])
    def test_rejects_a_number_of_bins(self, n_bins):
        with pytest.raises(ValueError, match=f'reliability: n_bins is {n_bins}'):
            reliability(TEN, TRUTH, n_bins)

    def test_rejects_labels_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r'reliability: .* expected \(10,\)'):
            reliability(TEN, TRUTH[:9])

class TestCalibrationError:
    def test_by_hand(self):
        assert abs(calibration_error(TEN, TRUTH) - 0.23) < 1e-6

    def test_gaps_of_both_signs_do_not_cancel(self):
        other = torch.tensor([1]*3 + [0]*3 + [1]*4)
        expected = (6*0.45 + 4*0.35)/10
        assert abs(calibration_error(TEN, other) - expected) < 1e-6

    def test_in_a_single_bin_they_do(self):
        other = torch.tensor([1]*3 + [0]*3 + [1]*4)
        assert abs(calibration_error(TEN, other, 1) - (0.83 - 0.7)) < 1e-6

    def test_is_a_number(self):
        assert type(calibration_error(TEN, TRUTH)) is float

    def test_has_ten_bins_by_default(self):
        p, targ = sampled()
        assert calibration_error(p, targ) == calibration_error(p, targ, 10)
        assert calibration_error(p, targ) != calibration_error(p, targ, 20)

class TestFitTemperature:
    def scores(self):
        "Scores that are right about as often as not, and the classes."
        scores = 3*torch.randn(50, 4).double()
        targ = torch.randint(0, 4, (50,))
        targ[:30] = scores[:30].argmax(1)
        return scores, targ

    def test_by_hand(self):
        scores = torch.tensor([[2., 0.]]*4)
        found = fit_temperature(scores, torch.tensor([0, 0, 0, 1]))
        assert abs(found - 2/math.log(3)) < 1e-9

    def test_has_the_least_cross_entropy(self):
        scores, targ = self.scores()
        def loss(t): return F.cross_entropy(scores/t, targ).item()
        expected = minimize_scalar(loss, bounds=(0.1, 20), method='bounded',
                                   options={'xatol': 1e-9}).x
        assert abs(fit_temperature(scores, targ)/expected - 1) < 1e-5

    @pytest.mark.parametrize('factor', [0.02, 30])
    def test_grows_with_the_scores(self, factor):
        scores, targ = self.scores()
        found = fit_temperature(factor*scores, targ)
        assert abs(found/(factor*fit_temperature(scores, targ)) - 1) < 1e-9

    def test_of_float32_scores_is_a_float(self):
        scores, targ = self.scores()
        found = fit_temperature(scores.float(), targ)
        assert type(found) is float
        assert abs(found/fit_temperature(scores, targ) - 1) < 1e-5

    def test_rejects_scores_that_are_all_right(self):
        scores, _ = self.scores()
        with pytest.raises(ValueError, match='no temperature between 0.01 and 100.0'):
            fit_temperature(scores, scores.argmax(1))

    def test_rejects_scores_that_are_all_wrong(self):
        scores, _ = self.scores()
        with pytest.raises(ValueError, match='no temperature between'):
            fit_temperature(scores, scores.argmin(1))

    def test_rejects_no_scores_at_all(self):
        scores, targ = self.scores()
        with pytest.raises(ValueError, match='no temperature between'):
            fit_temperature(scores[:0], targ[:0])

    def test_rejects_a_range_without_the_best(self):
        scores, targ = self.scores()
        best = fit_temperature(scores, targ)
        fit_temperature(scores, targ, 0.9*best, 1.1*best)
        with pytest.raises(ValueError, match='no temperature between'):
            fit_temperature(scores, targ, 1.1*best, 10*best)
        with pytest.raises(ValueError, match='no temperature between'):
            fit_temperature(scores, targ, 0.1*best, 0.9*best)

    @pytest.mark.parametrize('low, high, match', [
        (-100., -0.01, 'low is -100.0, expected above 0'),
        (0, 1, 'low is 0, expected above 0'),
        (2., 1., 'high is 1.0, expected above 2.0')])
    def test_rejects_a_range(self, low, high, match):
        scores, targ = self.scores()
        with pytest.raises(ValueError, match=match):
            fit_temperature(scores, targ, low, high)

    def test_rejects_labels_that_do_not_fit(self):
        scores, targ = self.scores()
        with pytest.raises(ValueError, match='fit_temperature: targ has shape'):
            fit_temperature(scores, targ[:9])

class Total(Module):
    "A loss whose gradient is known: the sum of the scores."
    def fwd(self, out, targ): return out.sum(), out
    def bwd(self, grad, out, need_inp): return (grad*torch.ones_like(out),)

def line(*slopes):
    "A network whose score has these slopes in its inputs."
    model = Sequential([Linear(len(slopes), 1)])
    model.layers[0].w = torch.tensor([[slope] for slope in slopes])
    return model

PIXELS = torch.tensor([[0.3, -0.2, 0.9]])

class TestFgsm:
    model = line(0.2, -0.1, 0.7)

    def test_moves_by_the_sign_of_the_gradient(self):
        moved = fgsm(self.model, Total(), PIXELS, None, 0.5)
        torch.testing.assert_close(moved, torch.tensor([[0.8, -0.7, 1.4]]))

    def test_raises_the_loss_by_the_sum_of_the_slopes(self):
        moved = fgsm(self.model, Total(), PIXELS, None, 0.5)
        rise = self.model(moved) - self.model(PIXELS)
        assert abs(rise.item() - 0.5) < 1e-6

    def test_is_cut_to_the_range_of_an_input(self):
        moved = fgsm(self.model, Total(), PIXELS, None, 0.5, low=-0.5, high=1.)
        torch.testing.assert_close(moved, torch.tensor([[0.8, -0.5, 1.]]))

    def test_a_pixel_that_plays_no_part_stays(self):
        moved = fgsm(line(0.2, 0., 0.7), Total(), PIXELS, None, 0.5)
        assert moved[0, 1] == PIXELS[0, 1]

    def test_size_may_be_a_tensor_or_zero(self):
        moved = fgsm(self.model, Total(), PIXELS, None, torch.tensor(0.5))
        torch.testing.assert_close(moved, torch.tensor([[0.8, -0.7, 1.4]]))
        assert torch.equal(fgsm(self.model, Total(), PIXELS, None, 0), PIXELS)

    def test_uses_targets_and_loss(self, few):
        model = Sequential([Linear(784, 10, std=0.02)])
        moved = fgsm(model, CrossEntropy(), few.x_valid, few.y_valid, 0.01)
        assert (moved - few.x_valid).abs().max() < 0.01 + 1e-6
        after = cross_entropy(model(moved), few.y_valid)
        assert after > cross_entropy(model(few.x_valid), few.y_valid)

    @pytest.mark.parametrize('eps', [-0.1, math.nan, math.inf, torch.tensor(-1.)])
    def test_rejects_a_size(self, eps):
        with pytest.raises(ValueError, match='fgsm: eps is .*, expected at least 0'):
            fgsm(self.model, Total(), PIXELS, None, eps)

    @pytest.mark.parametrize('low, high', [(1., 0.), (1., 1.)])
    def test_rejects_a_range_without_room(self, low, high):
        with pytest.raises(ValueError, match='fgsm: low is 1.0 and high .*low < high'):
            fgsm(self.model, Total(), PIXELS, None, 0.1, low, high)

class TestAdversarial:
    def moved(self, eps=0.7):
        "A batch as `Adversarial` leaves it, and the model."
        model = Sequential([Linear(20, 9), ReLU(), Dropout(0.5), Linear(9, 4)])
        model.to(torch.float64)
        x = torch.randn(30, 20).double()
        y = torch.randint(4, (30,))
        learn = SimpleNamespace(model=model, loss=CrossEntropy(), x=x, y=y)
        Adversarial(eps).before_batch(learn)
        return model, x, y, learn

    def test_keeps_the_batch_and_adds_moved_rows_with_its_labels(self):
        _, x, y, learn = self.moved()
        assert torch.equal(learn.x[:30], x)
        assert torch.equal(learn.y, torch.cat([y, y]))
        assert len(learn.x) == 60

    def test_moves_every_row_by_the_length_along_its_gradient(self):
        model, x, y, learn = self.moved(0.7)
        leaf = x.clone().requires_grad_()
        F.cross_entropy(model.eval()(leaf), y).backward()
        expected = x + 0.7*leaf.grad/leaf.grad.norm(dim=1, keepdim=True)
        torch.testing.assert_close(learn.x[30:], expected, rtol=1e-12, atol=1e-14)

    def test_leaves_training_mode_and_gradients_alone(self):
        model, _, _, _ = self.moved()
        assert model.training and all(layer.training for layer in model.layers)
        assert all(p.grad is None for p in model.parameters())

    def test_moves_by_the_length_however_small_the_gradient(self):
        learn = SimpleNamespace(model=line(1e-20, 0.), loss=Total(),
                                x=torch.zeros(3, 2), y=torch.zeros(3))
        Adversarial(2.).before_batch(learn)
        torch.testing.assert_close(learn.x[3:], torch.tensor([[2., 0.]]*3))

    def test_a_row_without_a_gradient_stays(self):
        learn = SimpleNamespace(model=line(0., 0.), loss=Total(),
                                x=torch.ones(3, 2), y=torch.zeros(3))
        Adversarial(2.).before_batch(learn)
        assert torch.equal(learn.x, torch.ones(6, 2))

    def test_moves_by_3_2_by_default(self):
        assert Adversarial().eps == 3.2

    def test_trains_a_network_that_is_harder_to_fool(self, few):
        losses = {}
        for name, callbacks in (('plain', []), ('adversarial', [Adversarial(3.)])):
            g = torch.Generator().manual_seed(0)
            model = Sequential([Linear(784, 20, generator=g), ReLU(),
                                Linear(20, 10, std=0.02, generator=g)])
            Learner(model, few, SGD(model.parameters(), lr=0.1), CrossEntropy(),
                    callbacks=callbacks, generator=g).fit(3)
            moved = fgsm(model, CrossEntropy(), few.x_valid, few.y_valid, 0.2)
            losses[name] = cross_entropy(model(moved), few.y_valid)
        assert losses['adversarial'] < 0.8*losses['plain']

    def test_rejects_a_module_of_pytorch(self, few):
        model = MLP([784, 10])
        learn = Learner(model, few, SGD(model.parameters(), lr=0.1), F.cross_entropy,
                        callbacks=[Adversarial()])
        with pytest.raises(ValueError, match='model is a MLP, expected a hand-written'):
            learn.fit(1)

    @pytest.mark.parametrize('eps', [-1, math.nan, math.inf])
    def test_rejects_a_length(self, eps):
        with pytest.raises(ValueError, match='Adversarial: eps is .*, expected at'):
            Adversarial(eps)
