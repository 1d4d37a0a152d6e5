"""Errors of detail: what they see, and what they do not."""

import pytest
import torch
import torch.nn.functional as F

from training.detail import (
    balanced,
    gradient_difference,
    pattern_error,
    spectrum_difference,
)

BOTH = pytest.mark.parametrize("difference", [gradient_difference, spectrum_difference])


def picture(seed=0):
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def blurred(pictures):
    return F.avg_pool2d(pictures, 3, stride=1, padding=1)


@BOTH
def test_equal_pictures_do_not_differ_and_blur_does(difference):
    assert float(difference(picture(), picture())) == pytest.approx(0, abs=1e-6)
    assert float(difference(blurred(picture()), picture())) > 0.05


def test_a_spectrum_says_how_much_and_not_where():
    """Other noise of the same strength is as far away as can be, and has the right spectrum."""
    wanted, other, soft = picture(), picture(1), blurred(picture())
    assert float(F.l1_loss(other, wanted)) > float(F.l1_loss(soft, wanted))
    found = [float(spectrum_difference(p, wanted)) for p in (other, soft)]
    assert found[0] < 0.3 * found[1]


def test_a_spectrum_says_at_which_frequencies():
    """Dots on the grid bring back the contrast that blur took away, and hardly any spectrum."""
    wanted, soft = picture(), blurred(picture())
    dots = torch.arange(64) % 2 * 2 - 1
    missing = (wanted - soft).std()
    dotted = soft + missing * dots * dots[:, None]
    assert float(dotted.std()) == pytest.approx(float(wanted.std()), rel=0.1)
    found = [float(spectrum_difference(p, wanted)) for p in (dotted, soft)]
    assert found[0] > 0.95 * found[1]


def test_a_spectrum_is_that_of_windows():
    """A mean over windows, in logarithms; and what is quiet counts as equal."""
    left = torch.cat([torch.ones(32), torch.zeros(32)])
    wanted = picture()
    one_sided = spectrum_difference(wanted * left, wanted)
    assert 0.1 < float(one_sided) < 1
    assert float(spectrum_difference(wanted * 0.5, wanted)) == pytest.approx(0.693, abs=0.01)
    flat = torch.zeros(1, 3, 64, 64)
    assert float(spectrum_difference(flat + 0.0002 * picture()[:1], flat)) < 0.01


def test_gradients_turn_by_a_quarter_unseen():
    """Magnitudes count, directions do not: a ramp down is as good as a ramp to the right."""
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    assert float(gradient_difference(ramp.mT, ramp)) == pytest.approx(0, abs=1e-5)


def test_a_pattern_is_what_repeats():
    wanted = picture()
    wave = torch.cos(torch.arange(64) * torch.pi / 4)
    amplitude = 0.01
    for repeating in (wave.expand(64, 64), wave[:, None].expand(64, 64)):
        found = float(pattern_error(wanted + amplitude * repeating, wanted))
        assert found == pytest.approx(amplitude**2 / 2, rel=1e-3)
    other = torch.cos(torch.arange(64) * torch.pi / 4 * 5 / 8)  # five periods where eight would be
    assert float(pattern_error(wanted + amplitude * other, wanted)) < 1e-3 * amplitude**2
    assert float(pattern_error(wanted + 0.1, wanted)) == pytest.approx(0, abs=1e-9)


@BOTH
def test_it_pulls_at_no_colour(difference):
    found = blurred(picture()).requires_grad_(True)
    difference(found, picture()).backward()
    red, green, blue = found.grad.unbind(1)
    torch.testing.assert_close(red, green)
    torch.testing.assert_close(green, blue)


def test_others_pull_as_hard_as_they_are_told_to():
    found = blurred(picture()).requires_grad_(True)
    middle = found * 1
    base = F.l1_loss(middle, picture())
    other = 1000 * spectrum_difference(middle, picture())
    own = torch.autograd.grad(base, middle, retain_graph=True)[0]
    total = balanced(middle, base, [other], 0.5)
    more = torch.autograd.grad(total, middle)[0] - own
    assert float(more.norm() / own.norm()) == pytest.approx(0.5, rel=1e-3)


def test_what_pulls_at_nothing_changes_nothing():
    same = picture().requires_grad_(True)
    middle = same * 1
    total = balanced(middle, F.mse_loss(middle, picture()), [middle.sum() * 0], 1.0)
    assert bool(torch.isfinite(torch.autograd.grad(total, middle)[0]).all())
