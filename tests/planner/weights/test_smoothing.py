"""Smoothing: the algebra, and that the choice pays where channels differ."""

import pytest
import torch

from artifacts.codec.gaussian_quantizer import dequantize_rows, quantize_rows
from planner.recipes import recipe_settings
from planner.target import parse_target
from planner.weights.layer import quantize_layer
from planner.weights.smoothing import choose_smoothing, smoothing_vector, token_noise
from runtime.backends.reference import ReferenceLinear
from schemas.calibration import ChannelStatistics

W4A4 = parse_target("W4A4")


def channel_statistics(x):
    return ChannelStatistics(
        maximum=tuple(x.abs().amax(0).tolist()), mean_square=tuple(x.square().mean(0).tolist())
    )


@pytest.fixture
def layer():
    """A weight, and inputs with two channels thirty times as large as the others."""
    generator = torch.Generator().manual_seed(0)
    weight = 0.05 * torch.randn(24, 32, generator=generator)
    x = torch.randn(400, 32, generator=generator)
    x[:, [3, 17]] *= 30
    return weight, x


def test_a_half_balances_the_largest_magnitudes(layer):
    weight, x = layer
    smoothing = smoothing_vector(weight, x.abs().amax(0), 0.5)
    ratio = (x / smoothing).abs().amax(0) / (weight * smoothing).abs().amax(0)
    torch.testing.assert_close(ratio, ratio[:1].expand(32), rtol=1e-5, atol=0)
    assert smoothing.log().mean().abs() < 1e-6


def test_dead_channels_stay_as_they_are(layer):
    weight, x = layer
    maximum = x.abs().amax(0)
    maximum[5] = 0
    weight[:, 9] = 0
    smoothing = smoothing_vector(weight, maximum, 0.75)
    assert smoothing[5] == smoothing[9] == 1
    assert bool((smoothing > 0).all())
    assert torch.equal(smoothing_vector(weight, torch.zeros(32), 0.5), torch.ones(32))


def output_error(weight, x, smoothing, bits):
    """Relative output error of one layer, quantized without factors."""
    codes, scale = quantize_rows(weight * smoothing, bits, "absmax")
    w = dequantize_rows(codes, scale, bits)
    codes, scale = quantize_rows(x / smoothing, bits, "absmax")
    y = dequantize_rows(codes, scale, bits) @ w.T
    exact = x @ weight.T
    return float((y - exact).norm() / exact.norm())


def test_the_choice_lowers_the_true_error_where_channels_differ(layer):
    weight, x = layer

    def quantize(smoothed):
        codes, scale = quantize_rows(smoothed, 4, "absmax")
        return smoothed, smoothed - dequantize_rows(codes, scale, 4)

    chosen = choose_smoothing(
        weight, channel_statistics(x), quantize, activation_bits=4, activation_scale="absmax"
    )
    plain = output_error(weight, x, torch.ones(32), 4)
    assert output_error(weight, x, chosen, 4) < 0.7 * plain


def test_noise_of_a_token():
    power, maximum = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 7.5])
    assert token_noise(power, maximum, 16, "absmax") == 0
    assert token_noise(power, maximum, 4, "absmax") == pytest.approx((15 / 15) ** 2 / 12)
    assert token_noise(power, maximum, 4, "gaussian") == pytest.approx(2 * 0.01154288, rel=1e-6)


def test_a_smoothed_layer_computes_what_its_decoded_weight_says(layer):
    weight, x = layer
    settings = recipe_settings("svdquant", W4A4, global_rank=3)
    made = quantize_layer("l", weight, None, 8, settings, channel_statistics(x))
    assert made.weight.smoothing is not None
    assert made.record.smoothing
    y = ReferenceLinear(made.weight, "absmax")(x, 16)
    expected = x.double() @ made.weight.decode().T
    # float32 sums of 32 terms, against a result of norm sqrt(terms).
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-4)
    error = (expected - x.double() @ weight.double().T).norm() / expected.norm()
    assert error < 0.01
    # The record's error is that of the original weight, not of the smoothed one.
    noise = (made.weight.decode() - weight.double()).norm() / weight.norm()
    assert made.record.error_db == pytest.approx(-20 * torch.log10(noise).item(), abs=0.01)


def test_statistics_are_needed_and_must_fit(layer):
    weight, x = layer
    settings = recipe_settings("svdquant", W4A4, global_rank=3)
    with pytest.raises(ValueError, match="layer l: smoothing needs"):
        quantize_layer("l", weight, None, 4, settings)
    with pytest.raises(ValueError, match="30 channels"):
        quantize_layer("l", weight, None, 4, settings, channel_statistics(x[:, :30]))
