"""The kernel that turns tokens into codes: smoothing, signs, rotation, scale, codes, their sum.

One program holds BM whole tokens in registers, as a tensor [L, BM, R] (`rotation_plan`): nothing
between the input and the codes touches memory.

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
def _product_right(
    x: tl.tensor, matrix: tl.tensor, splits: tl.constexpr, native: tl.constexpr
) -> tl.tensor:
    """``x @ matrix`` for float32 ``x`` [m, k] and ``matrix`` [k, n] of small integers."""
    total = tl.zeros([x.shape[0], matrix.shape[1]], tl.float32)
    for _ in tl.static_range(splits):
        part = x.to(tl.bfloat16)
        total = dot16(part, matrix, total, native)
        x -= part.to(tl.float32)
    return total


@triton.jit
def _product_left(
    matrix: tl.tensor, x: tl.tensor, splits: tl.constexpr, native: tl.constexpr
) -> tl.tensor:
    """``matrix @ x``, likewise."""
    total = tl.zeros([matrix.shape[0], x.shape[1]], tl.float32)
    for _ in tl.static_range(splits):
        part = x.to(tl.bfloat16)
        total = dot16(matrix, part, total, native)
        x -= part.to(tl.float32)
    return total


@triton.jit(do_not_specialize=["M", "tokens", "fault"])  # they change, the code does not
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
    half: tl.tensor,  # float: 2^(bits - 1)
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
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    row_l = tl.arange(0, LP)[:, None, None]
    row_m = m[None, :, None]
    row_r = tl.arange(0, RP)[None, None, :]
    k = row_l * R + row_r  # [LP, 1, RP]
    in_token = (row_l < L) & (row_r < R) & (k < size)
    mask = in_token & (row_m < M)

    rows = m // tokens * x_batch + m % tokens * x_row
    x = tl.load(x_ptr + rows[None, :, None] + k, mask=mask, other=0.0)
    x = x.to(tl.float32)
    if divisor_ptr is not None:
        x = tl.div_rn(x, tl.load(divisor_ptr + k, mask=in_token, other=1.0))
    if gain_ptr is not None:
        x *= tl.load(gain_ptr + k, mask=in_token, other=0.0)
    if left_ptr is not None:
        right = tl.load(right_ptr + tl.arange(0, RP)[:, None] * RP + tl.arange(0, RP)[None, :])
        left = tl.load(left_ptr + tl.arange(0, LP)[:, None] * LP + tl.arange(0, LP)[None, :])
        y = _product_right(tl.reshape(x, [LP * BM, RP]), right, INPUT_SPLITS, NATIVE)
        z = _product_left(left, tl.reshape(y, [LP, BM * RP]), SPLITS, NATIVE)
        z = tl.reshape(z, [LP, BM, RP]) * norm
    else:
        z = x

    # Padding is zero, so it counts in neither part.
    scale = tl.zeros([BM], tl.float32)
    if RMS:
        square = tl.sum(tl.sum(z * z, 2), 0)
        scale += tl.sqrt_rn(tl.div_rn(square, size.to(tl.float32))) * of_rms
    if PEAK:
        strange = tl.max(tl.max((tl.abs(z) < float("inf")).to(tl.int32) ^ 1, 2), 0)
        peak = tl.max(tl.max(tl.abs(z), 2), 0)
        # A maximum passes NaN by.
        scale += tl.where(strange == 0, peak, float("nan")) * of_peak
    finite = scale < float("inf")
    divisor = tl.where(scale > 0, scale, float("inf"))
    codes = tl.floor(tl.div_rn(z, divisor[None, :, None]) + half)
    codes = tl.minimum(tl.maximum(codes, 0.0), 2 * half - 1) - half
    integers = codes.to(tl.int32)

    out = row_m * size + k
    tl.store(codes_ptr + out, integers.to(tl.int8), mask=mask)
    tl.store(sum_ptr + m, tl.sum(tl.sum(integers, 2), 0), mask=m < M)
    tl.store(scale_ptr + m, scale, mask=m < M)
    if z_ptr is not None:
        tl.store(z_ptr + out, z.to(z_ptr.dtype.element_ty), mask=mask)
    # Any of several programs may write last: one layer's name is enough.
    tl.store(fault_ptr + tl.zeros_like(m), tl.zeros_like(m) + fault, mask=(m < M) & (finite == 0))
