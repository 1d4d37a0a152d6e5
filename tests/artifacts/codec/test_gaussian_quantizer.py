import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from artifacts.codec.gaussian_quantizer import dequantize_rows, gaussian_level, quantize_rows

# bits: clip, step, mean squared error; Max (1960), as the method page prints them.
MAX_1960 = {
    1: (0.797885, 1.595769, 0.3633802),
    2: (1.493530, 0.995687, 0.1188460),
    3: (2.051068, 0.586019, 0.03743966),
    4: (2.514005, 0.335201, 0.01154288),
    5: (2.916151, 0.188139, 0.003495211),
    6: (3.277985, 0.104063, 0.001040045),
    7: (3.611097, 0.056868, 0.0003043327),
    8: (3.922204, 0.030762, 0.00008768619),
}


@pytest.mark.parametrize("bits", MAX_1960)
def test_published_levels_to_five_digits(bits):
    level = gaussian_level(bits)
    for value, published in zip((level.clip, level.step, level.mse), MAX_1960[bits], strict=True):
        # The published steps of 7 and 8 bits have five digits: half a unit of the last is 1.6e-5.
        assert value == pytest.approx(published, rel=2e-5)
    assert level.clip == pytest.approx(level.step * (2**bits - 1) / 2)


@pytest.mark.parametrize("bits", [1, 2, 3, 5])
def test_error_equals_numerical_integration_and_is_least(bits):
    level = gaussian_level(bits)

    def error(step: float) -> float:
        def squared(x: float) -> float:
            code = min(max(math.floor(x / step + 2 ** (bits - 1)), 0), 2**bits - 1)
            return (x - step * (code - (2**bits - 1) / 2)) ** 2 * stats.norm.pdf(x)

        half = 2 ** (bits - 1)
        borders = [k * step for k in range(half)] + [10.0]
        pairs = itertools.pairwise(borders)
        return 2 * sum(integrate.quad(squared, a, b)[0] for a, b in pairs)

    assert level.mse == pytest.approx(error(level.step), rel=1e-7)
    for factor in (0.99, 1.01):
        assert error(level.step * factor) > level.mse


@pytest.mark.parametrize("bits", [0, 9, 16])
def test_bits_out_of_range(bits):
    with pytest.raises(ValueError, match="must be 1 to 8"):
        gaussian_level(bits)
    with pytest.raises(ValueError, match="must be 1 to 8"):
        quantize_rows(torch.ones(2), bits)


@pytest.mark.parametrize("bits", [1, 2, 4, 6])
def test_normal_values_reach_the_predicted_error(bits):
    # Quantiles in place of random draws: the few values in the tails carry a tenth of the error.
    shares = (torch.arange(2**20, dtype=torch.float64) + 0.5) / 2**20
    x = torch.special.ndtri(shares)
    codes, scale = quantize_rows(x, bits)
    error = (dequantize_rows(codes, scale, bits) - x).square().mean()
    # The outermost quantile stands for the mean of its cell: about 5e-4 of the error at 6 bits.
    assert float(error) == pytest.approx(gaussian_level(bits).mse, rel=1e-3)


def test_ties_go_up_and_the_ends_saturate():
    # absmax over 2 bits: levels ±3, ±1 for a largest magnitude of 3; borders at -2, 0, 2.
    x = torch.tensor([[-3.0, -2.0, -2.0001, 0.0, -0.0001, 2.0, 1.9999, 3.0]])
    codes, scale = quantize_rows(x, 2, "absmax")
    assert scale.tolist() == [2.0]
    assert codes.tolist() == [[0, 1, 0, 2, 1, 3, 2, 3]]
    assert dequantize_rows(codes, scale, 2).tolist() == [[-3, -1, -3, 1, -1, 3, 1, 3]]
    # gaussian: one outlier among many lies far beyond the outermost level.
    row = torch.ones(1, 100)
    row[0, 3] = -1000
    codes, _ = quantize_rows(row, 4)
    assert codes[0, 3] == 0
    codes, _ = quantize_rows(-row, 4)
    assert codes[0, 3] == 15


@pytest.mark.parametrize("rule", ["gaussian", "absmax", "blend"])
def test_zero_rows_decode_to_zeros_beside_others(rule):
    x = torch.tensor([[0.0, 0.0, 0.0], [1.0, -2.0, 3.0], [-0.0, 0.0, 1e-45]])
    codes, scale = quantize_rows(x, 3, rule)
    decoded = dequantize_rows(codes, scale, 3)
    assert scale[0] == 0
    assert scale[1] > 0
    assert torch.equal(decoded[0], torch.zeros(3))
    # The smallest float32 has a mean square, and a 2/7, of zero: treated as a row of zeros.
    assert torch.equal(decoded[2], torch.zeros(3))


@pytest.mark.parametrize("rule", ["gaussian", "absmax", "blend"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_non_finite_values_are_refused(rule, value):
    with pytest.raises(ValueError, match="not finite"):
        quantize_rows(torch.tensor([[1.0, value]], dtype=torch.float64), 4, rule)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 8),
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30),
    st.sampled_from(["gaussian", "absmax", "blend"]),
)
def test_absmax_error_is_at_most_half_a_step_and_any_code_decodes_nearest(bits, values, rule):
    x = torch.tensor(values)
    codes, scale = quantize_rows(x, bits, rule)
    assert codes.dtype == torch.uint8
    assert scale.dtype == torch.float32
    decoded = dequantize_rows(codes, scale, bits)
    clip = float(scale) * (2**bits - 1) / 2
    inside = x.abs() <= clip
    # Half a step, and the rounding of x / scale + 128 in float32 (2^-16 of a step).
    slack = float(scale) * (0.5 + 2**-15) + 1e-30
    assert bool(((decoded - x).abs()[inside] <= slack).all())
    assert bool((decoded.abs() <= clip * (1 + 1e-6)).all())


def test_leading_shapes_strides_and_dtypes():
    x = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0))
    turned = x.permute(2, 0, 1)
    codes, scale = quantize_rows(turned, 5)
    assert codes.shape == (5, 6, 4)
    assert scale.shape == (5, 6)
    again, scale_again = quantize_rows(turned.contiguous(), 5)
    assert torch.equal(codes, again)
    assert torch.equal(scale, scale_again)
    half_codes, half_scale = quantize_rows(turned.bfloat16(), 5)
    float_codes, float_scale = quantize_rows(turned.bfloat16().float(), 5)
    assert torch.equal(half_codes, float_codes)
    assert torch.equal(half_scale, float_scale)
