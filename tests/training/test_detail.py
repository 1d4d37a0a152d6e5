"""Errors of detail: what they see, and what they do not."""

import pytest
import torch
import torch.nn.functional as F

from training.detail import (
    _scharr,
    balanced,
    colour_error,
    gradient_difference,
    overshoot_error,
    pattern_error,
    quiet_error,
    ragged_error,
    spectrum_difference,
    weave_error,
)

BOTH = pytest.mark.parametrize("difference", [gradient_difference, spectrum_difference])
ONE_SIDED = [quiet_error, overshoot_error, ragged_error]
ALL = [gradient_difference, spectrum_difference, weave_error, pattern_error, *ONE_SIDED]


def picture(seed=0):
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def blurred(pictures):
    return F.avg_pool2d(pictures, 3, stride=1, padding=1)


@BOTH
def test_equal_pictures_do_not_differ_and_blur_does(difference):
    assert float(difference(picture(), picture()).max()) == pytest.approx(0, abs=1e-6)
    assert float(difference(blurred(picture()), picture()).min()) > 0.05


@pytest.mark.parametrize("error", ALL)
def test_every_picture_has_its_own_error(error):
    wanted = picture() * 0.01
    found = torch.stack([wanted[0], wanted[1] + 0.5 * picture(1)[1]])
    first, second = error(found, wanted)
    assert float(first) == pytest.approx(0, abs=1e-6)
    assert float(second) > 100 * float(first)
    assert float(second) > 1e-5


def test_speckle_counts_where_nothing_is_wanted():
    """The same noise over a field and over texture; less than is wanted is no error."""
    speckle, flat = 0.05 * picture(), torch.zeros(2, 3, 64, 64)
    over_field = quiet_error(speckle, flat)
    over_texture = quiet_error(picture(1) + speckle, picture(1))
    assert float(over_texture.max()) < 0.01 * float(over_field.min())
    assert float(quiet_error(flat, speckle).max()) == 0


def test_a_field_of_another_brightness_is_as_quiet():
    ramp = torch.linspace(0.95, 0.96, 64).expand(2, 3, 64, 64)
    assert float(quiet_error(ramp + 0.02, ramp).max()) == pytest.approx(0, abs=1e-6)
    speckle = 0.002 * picture()
    bright, dark = (quiet_error(x + speckle, x) for x in (ramp, ramp - 1.9))
    torch.testing.assert_close(bright, dark, rtol=0.01, atol=0)


def test_dots_count_where_nothing_nearby_is_as_bright():
    """A bright dot on an edge's bright side is in the edge's range up to two pixels away."""
    wanted = torch.zeros(1, 3, 32, 32)
    wanted[..., 16:] = 1
    found = {}
    for place in (13, 14, 16):  # three and two pixels beside the edge, and behind it
        dotted = wanted.clone()
        dotted[0, :, 8, place] = 1
        found[place] = float(overshoot_error(dotted, wanted))
    assert found == {13: pytest.approx(0.25 / 32**2), 14: 0, 16: 0}
    for sign in (1, -1):
        beyond = sign * (wanted + 0.2 * wanted)
        assert float(overshoot_error(beyond, sign * wanted)) == pytest.approx(0.01 / 2)


def edge(slope, shift=0.0):
    """A bright half behind an edge [1, 3, 64, 64], whose place shifts by ``shift`` [64] a row."""
    rows, columns = torch.arange(64.0)[:, None], torch.arange(64.0)
    return torch.sigmoid(columns - 32 - slope * (rows - 32) - shift).expand(1, 3, 64, 64) * 2 - 1


@pytest.mark.parametrize("slope", [0.0, 0.3, -0.7])
def test_teeth_count_along_an_edge(slope):
    teeth = 1.5 * (torch.arange(64) // 4 % 2)[:, None]
    straight = edge(slope)
    toothed = float(ragged_error(edge(slope, teeth), straight))
    assert toothed > 0.01
    soft = F.avg_pool2d(F.pad(straight, (1, 1, 1, 1), "replicate"), 3, stride=1)
    for fine in (straight, edge(slope, 1.0), soft, straight * 0.5):
        assert float(ragged_error(fine, straight)) < 0.15 * toothed


def test_teeth_that_are_wanted_are_none():
    """Another's edge with teeth, and texture, which has no edge."""
    teeth = 1.5 * (torch.arange(64) // 4 % 2)[:, None]
    toothed = float(ragged_error(edge(0.3, teeth), edge(0.3)))
    assert float(ragged_error(edge(0.3), edge(0.3, teeth))) < 0.1 * toothed
    over_texture = ragged_error(picture(), picture(1)).mean()
    assert float(over_texture) < 0.1 * float(ragged_error(edge(0, 2 * teeth), edge(0)).mean())


def test_a_weave_is_what_repeats_with_the_latent():
    """Dots of one sign, of one that changes from field to field; other noise hardly counts."""
    wanted = picture()
    dots = torch.zeros(64, 64)
    dots[1::4, 2::4] = 0.1
    half = torch.where(torch.arange(64) < 32, 1, -1)
    expected = (0.1**2 / 4) * (1 / 16 - 1 / 16**2)
    assert float(weave_error(wanted + dots, wanted).mean()) == pytest.approx(expected, rel=1e-3)
    changing = float(weave_error(wanted + dots * half, wanted).mean())
    assert changing > 0.6 * expected
    noise = 0.1 / 4 * torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    assert float(weave_error(wanted + noise, wanted).mean()) < 0.05 * expected


@pytest.mark.parametrize("error", ONE_SIDED)
def test_what_is_wanted_is_clean(error):
    assert float(error(picture(), picture()).max()) == 0
    assert float(error(blurred(picture()), picture()).max()) == 0


def test_a_spectrum_says_how_much_and_not_where():
    """Other noise of the same strength is as far away as can be, and has the right spectrum."""
    wanted, other, soft = picture(), picture(1), blurred(picture())
    assert float(F.l1_loss(other, wanted)) > float(F.l1_loss(soft, wanted))
    found = [float(spectrum_difference(p, wanted).mean()) for p in (other, soft)]
    assert found[0] < 0.3 * found[1]


def test_a_spectrum_says_at_which_frequencies():
    """Dots on the grid bring back the contrast that blur took away, and hardly any spectrum."""
    wanted, soft = picture(), blurred(picture())
    dots = torch.arange(64) % 2 * 2 - 1
    missing = (wanted - soft).std()
    dotted = soft + missing * dots * dots[:, None]
    assert float(dotted.std()) == pytest.approx(float(wanted.std()), rel=0.1)
    found = [float(spectrum_difference(p, wanted).mean()) for p in (dotted, soft)]
    assert found[0] > 0.95 * found[1]


def test_a_spectrum_is_that_of_windows():
    """A mean over windows, in logarithms; and what is quiet counts as equal."""
    left = torch.cat([torch.ones(32), torch.zeros(32)])
    wanted = picture()
    one_sided = spectrum_difference(wanted * left, wanted).mean()
    assert 0.1 < float(one_sided) < 1
    assert float(spectrum_difference(wanted * 0.5, wanted).mean()) == pytest.approx(0.693, abs=0.01)
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
        found = pattern_error(wanted + amplitude * repeating, wanted)
        assert found.tolist() == pytest.approx([amplitude**2 / 2] * len(found), rel=1e-3)
    other = torch.cos(torch.arange(64) * torch.pi / 4 * 5 / 8)  # five periods where eight would be
    assert float(pattern_error(wanted + amplitude * other, wanted).max()) < 1e-3 * amplitude**2
    assert float(pattern_error(wanted + 0.1, wanted).max()) == pytest.approx(0, abs=1e-9)


def test_a_colour_is_that_of_a_field_channel_by_channel():
    """Detail in it is none, however much."""
    wanted = 0.5 * picture()
    tint = torch.tensor([0.2, 0.0, -0.2]).view(1, 3, 1, 1)
    torch.testing.assert_close(colour_error(wanted + tint, wanted), torch.full((2,), 0.02 / 3))
    checks = torch.tensor([1.0, -1.0]).repeat(32)
    assert float(colour_error(wanted + checks, wanted).max()) < 1e-9
    half = torch.cat([torch.full((32,), 0.2), torch.zeros(32)])
    assert float(colour_error(wanted + half, wanted).max()) == pytest.approx(0.005, rel=1e-3)


@pytest.mark.parametrize("error", ALL)
def test_it_pulls_at_no_colour(error):
    wanted = 0.02 * picture()
    found = (blurred(wanted) + 0.02 * picture(1)).requires_grad_(True)
    error(found, wanted).sum().backward()
    red, green, blue = (found.grad / found.grad.abs().max()).unbind(1)
    torch.testing.assert_close(red, green)
    torch.testing.assert_close(green, blue)


def test_others_pull_as_hard_as_they_are_told_to():
    found = blurred(picture()).requires_grad_(True)
    middle = found * 1
    base = F.l1_loss(middle, picture())
    others = [
        (0.5, 1000 * spectrum_difference(middle, picture()).mean()),
        (2.0, gradient_difference(middle, picture()).mean()),
    ]

    def pull(loss):
        return torch.autograd.grad(loss, middle, retain_graph=True)[0]

    alone = pull(base)
    for chosen in ([others[0]], [others[1]], others):
        more = pull(balanced(middle, base, chosen)) - alone
        each = [factor * pull(loss) / pull(loss).norm() for factor, loss in chosen]
        torch.testing.assert_close(more / alone.norm(), sum(each), rtol=1e-3, atol=1e-6)


def test_what_pulls_at_nothing_changes_nothing():
    middle = blurred(picture()).requires_grad_(True) * 1
    base = F.mse_loss(middle, picture())
    total = balanced(middle, base, [(1.0, middle.sum() * 0)])
    found, alone = (
        torch.autograd.grad(loss, middle, retain_graph=True)[0] for loss in (total, base)
    )
    torch.testing.assert_close(found, alone)


def test_who_asks_first_without_gradients_spoils_nothing():
    _scharr.cache_clear()
    with torch.inference_mode():
        gradient_difference(picture(), picture(1))
    found = picture().requires_grad_(True)
    gradient_difference(found, picture(1)).sum().backward()
    assert float(found.grad.abs().max()) > 0
