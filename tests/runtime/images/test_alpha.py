"""What cannot be seen must not show: colours beside transparency."""

import numpy as np
import pytest
import torch

from runtime.images.alpha import fill_invisible, resize_visible
from runtime.images.color import adain, swap_low_band
from runtime.images.resizing import resize

YELLOW = (240 / 255, 200 / 255, 60 / 255)


def disc(hidden, *, side=64, opaque=1.0):
    """A yellow disc, and around it an invisible colour: rgb [1, 3, H, W], alpha [1, 1, H, W]."""
    y, x = np.mgrid[:side, :side]
    inside = torch.from_numpy((y - side // 2) ** 2 + (x - side // 2) ** 2 < (3 * side // 8) ** 2)
    rgb = torch.empty(1, 3, side, side)
    for channel in range(3):
        rgb[0, channel] = torch.where(inside, YELLOW[channel], hidden[channel])
    return rgb, (opaque * inside.float())[None, None]


@pytest.mark.parametrize("hidden", [(0, 1, 0), (0, 0, 0), (1, 1, 1)])
def test_invisible_pixels_take_the_nearest_visible_colour(hidden):
    rgb, alpha = disc(hidden)
    rgb[0, :, 20, 40] = torch.tensor([0.1, 0.2, 0.3])
    seen = rgb.clone()
    filled = fill_invisible(rgb, alpha)
    visible = alpha[0, 0] > 0
    assert torch.equal(filled[0][:, visible], seen[0][:, visible])
    outside = filled[0][:, ~visible].T.unique(dim=0)
    for color in outside:  # nothing but what the disc's rim shows
        torch.testing.assert_close(color, torch.tensor(YELLOW))


def test_an_image_without_a_visible_or_an_invisible_pixel_stays():
    for opacity in (0.0, 1.0):
        rgb = torch.rand(1, 3, 5, 7)
        before = rgb.clone()
        assert torch.equal(fill_invisible(rgb, torch.full((1, 1, 5, 7), opacity)), before)


@pytest.mark.parametrize("size", [(256, 256), (96, 160), (20, 20)])
def test_faint_pixels_do_not_leak_into_what_is_opaque_when_resized(size):
    """Their colours are really there, so they are not filled, but count for next to nothing."""
    rgb, alpha = disc((0, 1, 0))
    alpha = alpha.clamp(min=1 / 255)
    resized = resize_visible(rgb, alpha, size)
    seen = resize(alpha, size)[0, 0] > 0.5
    expected = torch.tensor(YELLOW)[:, None].expand(3, int(seen.sum()))
    torch.testing.assert_close(resized[0][:, seen], expected, rtol=0, atol=2 / 255)
    assert 0 <= resized.min() <= resized.max() <= 1


def test_opaque_images_are_resized_as_ever():
    rgb = torch.rand(1, 3, 9, 11)
    for alpha in (None, torch.ones(1, 1, 9, 11)):
        assert torch.equal(resize_visible(rgb, alpha, (36, 44)), resize(rgb, (36, 44)))


@pytest.mark.parametrize("correct", [adain, swap_low_band])
def test_colour_corrections_do_not_look_at_invisible_pixels(correct):
    """A cast on the visible pixels alone is undone, whatever stands in the invisible ones."""
    generator = torch.Generator().manual_seed(0)
    reference, alpha = disc((0, 1, 0))
    reference = (reference + 0.02 * torch.randn(1, 3, 64, 64, generator=generator)).clamp(0, 1)
    image = reference + torch.tensor([0.1, -0.1, 0.05]).view(1, 3, 1, 1)
    image = torch.where(alpha > 0, image, torch.rand(1, 3, 64, 64, generator=generator))
    fixed = correct(image, reference, alpha)
    visible = alpha[0, 0] > 0
    torch.testing.assert_close(fixed[0][:, visible], reference[0][:, visible], rtol=0, atol=2 / 255)


@pytest.mark.parametrize("correct", [adain, swap_low_band])
def test_colour_corrections_stay_finite_without_a_visible_pixel(correct):
    image = torch.rand(1, 3, 8, 8)
    nothing = torch.zeros(1, 1, 8, 8)
    assert correct(image, torch.rand(1, 3, 8, 8), nothing).isfinite().all()
    # With all visible, weights change nothing.
    torch.testing.assert_close(
        correct(image, image.flip(3), torch.ones(1, 1, 8, 8)), correct(image, image.flip(3))
    )
