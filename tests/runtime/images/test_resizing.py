"""Resizing, padding, and the size at which a network sees an image."""

import pytest
import torch

from runtime.images.resizing import pad_to_multiple, resize, working_size


def test_small_images_are_raised_to_the_smallest_side_the_network_knows():
    assert working_size(400, 800, 512) == (512, 1024)
    assert working_size(600, 800, 512) == (600, 800)
    assert working_size(4, 4, 512) == (512, 512)
    # A strip is not blown up: 4 x 4000 would need 512 x 512,000.
    assert working_size(4, 4000, 512) == (4, 4000)
    assert working_size(4, 1024, 512) == (8, 2048)


@pytest.mark.parametrize(("size", "expected"), [((1, 1), (16, 16)), ((17, 40), (24, 40))])
def test_padding_reaches_the_multiple_and_keeps_the_image(size, expected):
    image = torch.rand(1, 3, *size)
    padded = pad_to_multiple(image, 8, at_least=16)
    assert padded.shape[-2:] == expected
    assert torch.equal(padded[..., : size[0], : size[1]], image)
    assert padded.std() > 0 or size == (1, 1)


def test_padding_mirrors_without_repeating_the_edge():
    image = torch.arange(6.0).view(1, 1, 1, 6)
    assert pad_to_multiple(image, 8, at_least=1)[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 4, 3]


def test_bicubic_is_that_of_image_editors():
    """One pixel on black, enlarged by 4: Keys' kernel with a = -0.5 at eighths of a pixel."""
    line = torch.zeros(1, 1, 1, 9)
    line[..., 4] = 0.5
    distance = ((torch.arange(36) + 0.5) / 4 - 4.5).abs()
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    kernel = torch.where(distance < 1, near, torch.where(distance < 2, far, 0))
    enlarged = resize(line, (1, 36))[0, 0, 0]
    torch.testing.assert_close(enlarged, (kernel / 2).clamp(0, 1), rtol=0, atol=1e-5)
