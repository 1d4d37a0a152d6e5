"""The kernel that turns tokens into codes: smoothing, signs, rotation, scale, codes, their sum.

One program holds BM whole tokens at a time in registers, as a matrix [BM L, R] (`rotation_plan`):
nothing between the input and the codes touches the device's memory. It goes on to the next tokens
with the rotation's matrices at hand. The left one stands on the diagonal once for every token, so a
number that is not finite spreads to the tokens beside it; the run ends with an error either way.

The rotation's matrices have entries +1, -1 and 0, which are exact in bfloat16. The operand beside
them is cut into bfloat16 parts, the leading bits and then what is left, 8 bits each: all products
are exact, and tensor cores add them in float32. One part is all of a bfloat16 input, two of a
float16 one. Two parts of a float32 number leave a relative error of 2^-17, three of 2^-24.
"""

# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator"

import triton
import triton.language as tl

from runtime.backends.triton.dot16_kernel import dot16


@triton.jit
def _product(
    left: tl.tensor,
    right: tl.tensor,
    x_is_left: tl.constexpr,
    splits: tl.constexpr,
    native: tl.constexpr,
) -> tl.tensor:
    """``left @ right`` where one operand is float32 and the other holds small integers."""
    total = tl.zeros([left.shape[0], right.shape[1]], tl.float32)
    x = left if x_is_left else right
    for index in tl.static_range(splits):
        if index + 1 < splits:
            # Rounded as whole numbers: the conversion's own instruction is four times slower.
            bits = (x.to(tl.int32, bitcast=True) + 0x8000) & -0x10000
            leading = bits.to(tl.float32, bitcast=True)
        else:
            leading = x
        part = leading.to(tl.bfloat16)
        total = dot16(part if x_is_left else left, right if x_is_left else part, total, native)
        x -= leading
    return total


@triton.jit
def _quotient(z: tl.tensor, divisor: tl.tensor, native: tl.constexpr) -> tl.tensor:
    """``z / divisor`` [BM, LP, RP] by [BM], correctly rounded; ``divisor`` is positive and finite.

    One reciprocal a token and two corrections of the product with it, Markstein's way, instead of a
    division a number. A power of two brings the divisor near 1, so that nothing over- or
    underflows on the way. Triton's interpreter rounds within a fused multiply-add, and divides.
    """
    if native:
        exponent = divisor.to(tl.int32, bitcast=True) & 0x7F800000
        power = tl.maximum(0x7F000000 - exponent, 0x00800000).to(tl.float32, bitcast=True)
        divisor *= power
        reciprocal = tl.div_rn(1.0, divisor)[:, None, None]
        divisor = divisor[:, None, None]
        z *= power[:, None, None]
        quotient = z * reciprocal
        for _ in tl.static_range(2):
            quotient = tl.fma(tl.fma(-quotient, divisor, z), reciprocal, quotient)
    else:
        quotient = tl.div_rn(z, divisor[:, None, None])
    return quotient


@triton.jit
def _greater(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _peak(z: tl.tensor) -> tl.tensor:
    """Largest magnitude of a token [BM, LP, RP] -> [BM]; NaN where a number is NaN."""
    return tl.reduce(tl.reduce(tl.abs(z), 2, _greater), 1, _greater)


@triton.jit(do_not_specialize=["M", "tokens", "half", "fault"])  # they change, the code does not
def prepare_kernel(
    x_ptr: tl.tensor,  # [batches, tokens, size], strides (x_batch, x_row, 1)
    gain_ptr: tl.tensor,  # float32 [size], or None
    divisor_ptr: tl.tensor,  # float32 [size], or None
    left_ptr: tl.tensor,  # bfloat16 [LP, LP], or None
    right_ptr: tl.tensor,  # bfloat16 [RP, RP], or None
    codes_ptr: tl.tensor,  # int8 [M, size]
    scale_ptr: tl.tensor,  # float32 [M]
    sum_ptr: tl.tensor,  # int32 [M]
    z_ptr: tl.tensor,  # [M, size], or None where nobody reads the rotated input
    fault_ptr: tl.tensor,  # int32 [1]
    M: tl.tensor,  # tokens of all batches
    tokens: tl.tensor,  # of one batch
    x_batch: tl.tensor,
    x_row: tl.tensor,
    size: tl.tensor,
    norm: tl.tensor,  # float
    of_rms: tl.tensor,  # float: weight of the root mean square in a token's scale
    of_peak: tl.tensor,  # float: weight of its largest magnitude
    half: tl.tensor,  # int: 2^(bits - 1)
    fault: tl.tensor,  # what to write to fault_ptr where a scale is not finite
    L: tl.constexpr,
    R: tl.constexpr,
    LP: tl.constexpr,
    RP: tl.constexpr,
    BM: tl.constexpr,
    RMS: tl.constexpr,  # whether of_rms is above 0
    PEAK: tl.constexpr,
    INPUT_SPLITS: tl.constexpr,  # parts of the input that hold all its bits
    SPLITS: tl.constexpr,
    NATIVE: tl.constexpr,
) -> None:
    """Write codes minus 2^(bits - 1), the token's scale and the sum of its codes."""
    rows = tl.arange(0, BM * LP)[:, None]
    row_l = rows % LP
    row_r = tl.arange(0, RP)[None, :]
    k = row_l * R + row_r  # [BM LP, RP]
    in_token = (row_l < L) & (row_r < R) & (k < size)
    right = None
    left = None
    if left_ptr is not None:
        right = tl.load(right_ptr + tl.arange(0, RP)[:, None] * RP + row_r)
        across = tl.arange(0, BM * LP)[None, :]
        left = tl.load(
            left_ptr + row_l * LP + across % LP, mask=rows // LP == across // LP, other=0.0
        )

    for block in range(tl.program_id(0), tl.cdiv(M, BM), tl.num_programs(0)):
        m = block * BM + rows // LP
        mask = in_token & (m < M)
        x = tl.load(x_ptr + (m // tokens * x_batch + m % tokens * x_row) + k, mask=mask, other=0.0)
        x = x.to(tl.float32)
        if divisor_ptr is not None:
            x = tl.div_rn(x, tl.load(divisor_ptr + k, mask=in_token, other=1.0))
        if gain_ptr is not None:
            x *= tl.load(gain_ptr + k, mask=in_token, other=0.0)
        if left_ptr is not None:
            y = _product(left, x, False, INPUT_SPLITS, NATIVE)
            z = _product(y, right, True, SPLITS, NATIVE) * norm
        else:
            z = x

        # Padding is zero, so it counts in neither part.
        of_token = tl.reshape(z, [BM, LP, RP])
        scale = tl.zeros([BM], tl.float32)
        if RMS:
            square = tl.sum(tl.sum(of_token * of_token, 2), 1)
            scale += tl.sqrt_rn(tl.div_rn(square, size.to(tl.float32))) * of_rms
        if PEAK:
            scale += _peak(of_token) * of_peak
        finite = scale < float("inf")
        # Where a token is zero, so are its numbers.
        divisor = tl.where((scale > 0) & finite, scale, 1.0)
        codes = _quotient(of_token, divisor, NATIVE) + half
        # What is not negative is rounded down by the cast.
        codes = tl.minimum(tl.maximum(codes, 0.0), 2 * half - 1)
        integers = codes.to(tl.int32) - half

        of_block = block * BM + tl.arange(0, BM)
        out = m * size + k
        tl.store(codes_ptr + out, tl.reshape(integers, [BM * LP, RP]).to(tl.int8), mask=mask)
        tl.store(sum_ptr + of_block, tl.sum(tl.sum(integers, 2), 1), mask=of_block < M)
        tl.store(scale_ptr + of_block, scale, mask=of_block < M)
        if z_ptr is not None:
            tl.store(z_ptr + out, z.to(z_ptr.dtype.element_ty), mask=mask)
        # Any of several programs may write last: one layer's name is enough.
        strange = (of_block < M) & (finite == 0)
        tl.store(fault_ptr + tl.zeros_like(of_block), tl.zeros_like(of_block) + fault, mask=strange)
