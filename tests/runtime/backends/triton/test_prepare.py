"""The preparing kernel: rotation within rounding, codes exactly those of the scale and values."""

import pytest
import torch

from artifacts.codec.gaussian_quantizer import quantize_rows
from artifacts.codec.hadamard import Rotation, random_signs
from runtime.backends.triton.rotation_plan import check_row, factor_matrices, padded, plan_for
from runtime.network.finite_watch import number_of, raise_if_seen
from tests.runtime.triton_device import DEVICE, full_width, launch, relative_error, seeded

SIXTEEN_BITS = 1 if DEVICE.type == "cuda" else 2
"""The interpreter cuts bfloat16 off where devices round: twice the error."""
STORED = {torch.float32: 2e-6, torch.bfloat16: SIXTEEN_BITS * 2**-8, torch.float16: 2**-11}
"""How far rotated tokens may be off, relative, once they are stored; float32: 24 bits of operands,
sums of 6144 terms."""


def prepare(x, rotation, bits, rule="gaussian", *, signs=None, smoothing=None):
    """Codes, scale, sums and rotated tokens on the CPU; the codes as the pack counts them."""
    found = launch.prepare_tokens(
        x.to(DEVICE),
        plan_for(rotation, signs, smoothing, DEVICE),
        bits,
        rule,
        fault=number_of("layer"),
        keep_rotated=True,
    )
    codes, scale, sums, rotated = (part.cpu() for part in found)
    known = torch.isfinite(scale)
    assert torch.equal(sums[known], codes.sum(-1, dtype=torch.int32)[known])
    return (codes.to(torch.int16) + 2 ** (bits - 1)).to(torch.uint8), scale, rotated


def tokens(count, size, seed=0):
    """Random tokens of very different sizes; the second is zero."""
    x = torch.randn(count, size, generator=seeded(seed))
    x *= torch.logspace(-3, 3, count)[:, None]
    x[1] = 0
    return x


def codes_at(z, bits, scale):
    """Codes of ``z`` for scales that are given, by the rule of `quantize_rows`."""
    divisor = torch.where(scale > 0, scale, torch.inf)[..., None]
    codes = (z / divisor + 2 ** (bits - 1)).floor().clamp(0, 2**bits - 1)
    return codes.to(torch.uint8)


@pytest.mark.parametrize("size", [16, 24, 32, 80, 96, 128, 144, 320, 768, 1536])
def test_two_products_make_the_rotation(size):
    rotation = Rotation.for_size(size)
    left, right = factor_matrices(rotation)
    dense = torch.kron(left, right) / rotation.block_size**0.5
    assert torch.equal(dense.abs() > 0, rotation.dense() != 0)
    torch.testing.assert_close(dense, rotation.dense(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", [24, 32, 40, 48, 80, 144, 1536])
def test_rotated_tokens_in_float32(size):
    """Sylvester, both of Paley's, blocks, no rotation, and the real width of the network."""
    rotation = Rotation.for_size(size)
    signs = None if rotation.is_identity else random_signs(size, 3)
    x = tokens(5, size)
    codes, scale, rotated = prepare(x, rotation, 4, signs=signs)
    z = rotation.apply(x, signs)
    # Three bfloat16 parts keep 24 bits; sums of 1536 terms in float32 lose a few more.
    torch.testing.assert_close(rotated, z, rtol=0, atol=2e-6 * float(z[-1].norm()))
    torch.testing.assert_close(scale, quantize_rows(z, 4)[1], rtol=1e-5, atol=0)
    assert float((codes != quantize_rows(z, 4)[0]).float().mean()) < 1e-3


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize(
    ("count", "size"),
    [
        (9, 80),
        (9, 144),
        *(full_width(101, n) for n in (32, 40, 80, 144, 192, 768, 1024, 1536, 2048, 6144)),
    ],
)
def test_rotation_and_codes_against_float64(count, size, dtype):
    rotation = Rotation.for_size(size)
    x = (torch.randn(count, size, generator=seeded(8)) * torch.logspace(-2, 2, count)[:, None]).to(
        dtype
    )
    codes, scale, rotated = prepare(x, rotation, 8)
    z = rotation.apply(x.double())
    assert relative_error(rotated, z) < STORED[dtype]
    assert relative_error(scale, quantize_rows(z, 8)[1]) < 1e-4
    # Codes of the very scale, so that only z's own error can move a code across a border.
    difference = (codes.int() - codes_at(z, 8, scale.double()).int()).abs()
    assert int(difference.max()) <= 1
    assert float(difference.float().mean()) < 2e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rotated_tokens_in_16_bits(dtype):
    rotation, signs = Rotation.for_size(96), random_signs(96, 3)
    x = (torch.randn(4, 96, generator=seeded(1)) * 3).to(dtype)
    codes, scale, rotated = prepare(x, rotation, 8, signs=signs)
    z = rotation.apply(x, signs)
    assert rotated.dtype == dtype
    # One unit in the last of 8 bits: the interpreter cuts bfloat16 off where devices round.
    torch.testing.assert_close(rotated.float(), z, rtol=2**-7, atol=1e-4)
    torch.testing.assert_close(scale, quantize_rows(z, 8)[1], rtol=2**-16, atol=0)
    assert (codes.int() - quantize_rows(z, 8)[0].int()).abs().max() <= 1


@pytest.mark.parametrize("rule", ["gaussian", "absmax", "blend"])
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(("count", "size"), [(9, 70), full_width(333, 200)])
def test_codes_follow_the_rule_exactly(count, size, bits, rule):
    """Without a rotation the values are the same bits, so the codes have to be."""
    x = tokens(count, size, seed=bits)
    x[2] = torch.linspace(-3, 3, size)  # many values on the border of two levels
    x[3, 0] = 1e6  # the others are far inside, this one saturates
    codes, scale, rotated = prepare(x, Rotation.identity(size), bits, rule)
    assert torch.equal(rotated, x)
    expected, expected_scale = quantize_rows(x, bits, rule)
    torch.testing.assert_close(scale, expected_scale, rtol=1e-6, atol=0)
    assert torch.equal(codes, codes_at(x, bits, scale))
    if rule == "absmax":  # a maximum does not hang on the order, a sum does
        assert torch.equal(scale, expected_scale)
        assert torch.equal(codes, expected)
    assert scale[1] == 0
    assert bool((codes[1] == 2 ** (bits - 1)).all())


def test_values_on_a_border_take_the_upper_code():
    x = torch.tensor([[-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0]])  # step 2 at 2 bits
    codes, scale, _ = prepare(x, Rotation.identity(8), 2, "absmax")
    assert float(scale) == 2.0
    assert codes.tolist() == [[0, 1, 1, 1, 2, 2, 2, 3]]


@pytest.mark.parametrize("power", [-90, 60, 120])
def test_codes_do_not_depend_on_a_power_of_two(power):
    """Of tiny and of huge tokens, whose squares are no numbers: this rule takes the peak."""
    x = torch.randn(7, 96, generator=seeded(12))
    codes, scale, _ = prepare(x, Rotation.identity(96), 4, "absmax")
    again, scaled, _ = prepare(x * 2.0**power, Rotation.identity(96), 4, "absmax")
    assert torch.equal(again, codes)
    assert torch.equal(scaled, scale * 2.0**power)


def test_steps_too_small_for_a_normal_number():
    """Whose reciprocals are no numbers; whole numbers times a power of two are exact there."""
    x = torch.randint(-9, 10, (7, 96), generator=seeded(13)) * 2.0**-140
    codes, scale, _ = prepare(x, Rotation.identity(96), 4, "absmax")
    assert 0 < float(scale.max()) < torch.finfo(torch.float32).tiny
    assert torch.equal(codes, codes_at(x, 4, scale))


def test_smoothing_divides():
    rotation, signs = Rotation.for_size(96), random_signs(96, 3)
    smoothing = torch.randn(96, generator=seeded(2)).exp()
    x = torch.randn(3, 96, generator=seeded(3)).bfloat16()
    _, scale, _ = prepare(x, rotation, 5, signs=signs, smoothing=smoothing)
    z = rotation.apply(x / smoothing, signs)
    torch.testing.assert_close(scale, quantize_rows(z, 5)[1], rtol=2**-16, atol=0)


def test_strides_of_the_input():
    rotation = Rotation.for_size(32)
    x = torch.randn(2, 32, 6, generator=seeded(4)).transpose(1, 2)
    wide = torch.randn(2, 9, 32, generator=seeded(5))
    for part in (x, wide[:, 4:], wide[:, :1], wide[0], wide[0, 0]):
        codes, scale, _ = prepare(part, rotation, 4)
        again = prepare(part.contiguous().reshape(-1, 32), rotation, 4)
        assert codes.shape == part.shape
        assert torch.equal(codes.view(-1, 32), again[0])
        assert torch.equal(scale.flatten(), again[1])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, inside the interpreter
@pytest.mark.parametrize("rule", ["gaussian", "absmax", "blend"])
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_what_is_not_finite_is_seen_and_spreads(rule, value):
    x = torch.randn(40, 32, generator=seeded(6))
    x[37, 5] = value
    _, scale, _ = prepare(x, Rotation.for_size(32), 4, rule)
    with pytest.raises(ValueError, match=r"layer layer: .*not finite"):
        raise_if_seen(DEVICE)
    raise_if_seen(DEVICE)  # once said, it is forgotten
    assert not bool(torch.isfinite(scale[37]))
    # Up to four tokens share a product from the left: zero times one of them is not finite either.
    assert bool(torch.isfinite(scale[:36]).all())


def test_too_long_tokens_are_refused():
    assert padded(12) == 16
    check_row(Rotation.for_size(6144))
    with pytest.raises(ValueError, match="do not fit"):
        check_row(Rotation.for_size(2**15))
