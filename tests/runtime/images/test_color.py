"""Colour correction: what it moves, and what it must leave."""

import pytest
import torch

from runtime.images.color import adain, correct_color, low_band, swap_low_band


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 40, 56, generator=generator)
    reference = 0.3 + 0.2 * torch.rand(2, 3, 40, 56, generator=generator)
    return image, reference


def test_adain_takes_mean_and_deviation_of_every_channel(pair):
    image, reference = pair
    fixed = adain(image, reference)
    torch.testing.assert_close(fixed.mean((2, 3)), reference.mean((2, 3)), rtol=1e-4, atol=1e-5)
    # VARIANCE_FLOOR is 0.3 % of the variance here, which moves the deviation by half of that.
    torch.testing.assert_close(fixed.std((2, 3)), reference.std((2, 3)), rtol=2e-3, atol=0)


def test_adain_of_an_image_with_itself_changes_nothing(pair):
    image, _ = pair
    torch.testing.assert_close(adain(image, image), image)


def test_adain_stays_finite_on_flat_images_and_single_pixels(pair):
    _, reference = pair
    flat = torch.full_like(reference, 0.5)
    assert adain(flat, reference).isfinite().all()
    pixel = torch.rand(1, 3, 1, 1)
    torch.testing.assert_close(adain(torch.zeros(1, 3, 1, 1), pixel), pixel)


def test_low_band_equals_the_written_out_binomial_blur():
    """One impulse far from the edges: after two levels, the product of two three-tap kernels."""
    line = torch.zeros(1, 1, 1, 201, dtype=torch.float64)
    line[..., 100] = 1
    spectrum = torch.fft.fft(low_band(line)[0, 0, 0])
    frequency = 2 * torch.pi * torch.fft.fftfreq(201, dtype=torch.float64)
    expected = torch.ones(201, dtype=torch.float64)
    for gap in (1, 2, 4, 8, 16):
        expected = expected * (0.5 + 0.5 * torch.cos(gap * frequency))  # [1 2 1]/4, taps gap apart
    torch.testing.assert_close(spectrum.abs(), expected.abs(), rtol=0, atol=1e-12)


def test_low_band_keeps_a_constant_at_any_size():
    for size in ((1, 1), (1, 70), (5, 3)):
        constant = torch.full((1, 3, *size), 0.7)
        torch.testing.assert_close(low_band(constant), constant)


def test_wavelet_takes_low_frequencies_from_the_reference_and_high_from_the_image(pair):
    image, reference = pair
    fixed = swap_low_band(image, reference)
    torch.testing.assert_close(fixed - low_band(reference), image - low_band(image))


def test_wavelet_undoes_a_colour_cast(pair):
    image, _ = pair
    cast = image + torch.tensor([0.2, -0.1, 0.05]).view(1, 3, 1, 1)
    torch.testing.assert_close(swap_low_band(cast, image), image)


def test_none_returns_the_image_and_other_shapes_are_refused(pair):
    image, reference = pair
    assert correct_color(image, reference, "none") is image
    torch.testing.assert_close(correct_color(image, reference, "adain"), adain(image, reference))
    torch.testing.assert_close(
        correct_color(image, reference, "wavelet"), swap_low_band(image, reference)
    )
    with pytest.raises(ValueError, match="differ in shape"):
        correct_color(image, reference[..., 1:], "none")
