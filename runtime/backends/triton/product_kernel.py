"""The kernel of the integer product, with everything that follows it.

    y = (levels of the weight) (levels of the token) + up (low-rank activations) + bias

The weight stands on the left, so that packed weights are unpacked into registers and go from there
into Hopper's tensor cores, and so that few tokens fill few columns instead of padded rows. The
tokens' tile is read along the inputs, as the tensor cores want both operands.
"""

# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator"

import triton
import triton.language as tl

from runtime.backends.triton.dot16_kernel import dot16


@triton.jit
def _halves_low(packed: tl.tensor) -> tl.tensor:
    """The low four bits of every byte, four bytes per instruction."""
    return tl.inline_asm_elementwise(
        "and.b32 $0, $1, 0x0F0F0F0F;",
        "=r,r",
        [packed],
        dtype=tl.int8,
        is_pure=True,
        pack=4,
    )


@triton.jit
def _halves_high(packed: tl.tensor) -> tl.tensor:
    """The high four bits of every byte, four bytes at a time."""
    return tl.inline_asm_elementwise(
        "{ .reg .b32 t; shr.b32 t, $1, 4; and.b32 $0, t, 0x0F0F0F0F; }",
        "=r,r",
        [packed],
        dtype=tl.int8,
        is_pure=True,
        pack=4,
    )


@triton.jit
def _tile(
    pid: tl.tensor, tiles_m: tl.tensor, tiles_n: tl.tensor, group: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Which tile a program computes: those that run together share operands in the cache."""
    per_group = group * tiles_n
    first = pid // per_group * group
    rows = min(tiles_m - first, group)
    return first + pid % per_group % rows, pid % per_group // rows


@triton.jit
def _unpacked(
    high: tl.tensor,  # bytes of the wider plane, uint8 [BN, BK]
    low_rows: tl.tensor,  # where rows of the narrower plane start
    k: tl.tensor,  # the tile's first element of the row
    ks: tl.tensor,
    low_length: tl.tensor,
    part: tl.constexpr,  # which slice of the row to unpack
    HIGH: tl.constexpr,
    LOW: tl.constexpr,
    NATIVE: tl.constexpr,
) -> tl.tensor:
    """Unsigned codes as int8 [BN, BK]."""
    if HIGH == 4 and LOW == 0 and NATIVE:
        return _halves_low(high) if part == 0 else _halves_high(high)
    codes = (high >> (part * HIGH)) & ((1 << HIGH) - 1)
    if LOW:
        low = tl.load(low_rows + (k % low_length + ks)[None, :])
        shift = (k // low_length * LOW).to(tl.uint8)
        codes = (codes << LOW) | ((low >> shift) & ((1 << LOW) - 1))
    return codes.to(tl.int8)


@triton.jit
def _plus_factors(
    y: tl.tensor,  # float32 [BN, BM]
    low_rank_rows: tl.tensor,  # [1, BM]
    up_rows: tl.tensor,  # [BN, 1]
    n: tl.tensor,
    first_n: tl.tensor,  # the tile's first channel
    last_n: tl.tensor,  # and its last
    block_rows: tl.tensor,
    RG: tl.constexpr,
    Q: tl.constexpr,
    RGP: tl.constexpr,
    QP: tl.constexpr,
    NATIVE: tl.constexpr,
) -> tl.tensor:
    """``y + up @ low_rank``, the second half of the low-rank product."""
    dtype: tl.constexpr = low_rank_rows.dtype.element_ty
    if RG:
        g = tl.arange(0, RGP)
        up = tl.load(up_rows + g[None, :], mask=(g < RG)[None, :], other=0.0).to(dtype)
        shared = tl.load(low_rank_rows + g[:, None], mask=(g < RG)[:, None], other=0.0)
        y = dot16(up, shared, y, NATIVE)
    if Q:
        q = tl.arange(0, QP)
        q_ok = q < Q
        entries = tl.load(up_rows + (RG + q)[None, :], mask=q_ok[None, :], other=0.0)
        # The tile's channels may lie in several block rows; each has numbers of its own.
        for p in range(first_n // block_rows, last_n // block_rows + 1):
            mine = tl.where((n // block_rows == p)[:, None], entries, 0.0).to(dtype)
            column = (RG + p * Q + q)[:, None]
            numbers = tl.load(low_rank_rows + column, mask=q_ok[:, None], other=0.0)
            y = dot16(mine, numbers, y, NATIVE)
    return y


@triton.jit(do_not_specialize=["M", "tokens", "stat_batch"])  # they change, the code does not
def product_kernel(
    codes_ptr: tl.tensor,  # int8 [batches, tokens, K], strides (codes_batch, codes_row, 1)
    scale_ptr: tl.tensor,  # float32 [batches, tokens], strides (stat_batch, 1)
    sum_ptr: tl.tensor,  # int32, likewise
    high_ptr: tl.tensor,  # int8 or uint8 [N, slice_length], see `resident`
    low_ptr: tl.tensor,  # uint8 [N, low_length], or None
    offset_ptr: tl.tensor,  # int32 [N]
    step_ptr: tl.tensor,  # float32 [N], the weight's scale
    low_rank_ptr: tl.tensor,  # [M, rank_width], or None without factors
    up_ptr: tl.tensor,  # [N, RG + Q]
    bias_ptr: tl.tensor,  # [N], or None
    y_ptr: tl.tensor,  # [M, N]
    M: tl.tensor,
    N: tl.tensor,
    K: tl.tensor,
    tokens: tl.tensor,
    codes_batch: tl.tensor,
    codes_row: tl.tensor,
    stat_batch: tl.tensor,
    slice_length: tl.tensor,
    low_length: tl.tensor,
    rank_width: tl.tensor,
    block_rows: tl.tensor,  # N / P
    HIGH: tl.constexpr,  # bits of the planes
    LOW: tl.constexpr,
    SUM_FACTOR: tl.constexpr,
    RG: tl.constexpr,
    Q: tl.constexpr,
    RGP: tl.constexpr,  # RG and Q, padded
    QP: tl.constexpr,
    EVEN: tl.constexpr,  # K fills the slices: no tile of tokens needs a mask
    NATIVE: tl.constexpr,  # on a device, not in the interpreter
    RAW: tl.constexpr,  # write the doubled integer product, for tests
    BN: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    GROUP: tl.constexpr,
) -> None:
    """Sums of products are exact 32-bit integers; what follows is float32 until the last cast."""
    tile_m, tile_n = _tile(tl.program_id(0), tl.cdiv(M, BM), tl.cdiv(N, BN), GROUP)
    n = tile_n * BN + tl.arange(0, BN)
    m = tile_m * BM + tl.arange(0, BM)
    n_ok = n < N
    m_ok = m < M
    # Rows beyond the last read the first instead: what comes of them is not stored.
    n_row = tl.where(n_ok, n, 0)
    m_row = tl.where(m_ok, m, 0)
    batch = m_row // tokens
    token = m_row % tokens
    codes_rows = codes_ptr + (batch * codes_batch + token * codes_row)[None, :]
    stats = batch * stat_batch + token
    ks = tl.arange(0, BK)
    high_rows = high_ptr + n_row[:, None] * slice_length
    low_rows = low_ptr + n_row[:, None] * low_length if LOW else None

    total = tl.zeros([BN, BM], tl.int32)
    for start in range(0, slice_length, BK):
        high = tl.load(high_rows + (start + ks)[None, :])
        for part in tl.static_range(8 // HIGH):
            k = part * slice_length + start
            if HIGH == 8:
                weight = high
            else:
                weight = _unpacked(high, low_rows, k, ks, low_length, part, HIGH, LOW, NATIVE)
            if EVEN:
                codes = tl.load(codes_rows + (k + ks)[:, None])
            else:
                codes = tl.load(codes_rows + (k + ks)[:, None], mask=(k + ks)[:, None] < K, other=0)
            total = tl.dot(weight, codes, total, out_dtype=tl.int32)

    offset = tl.load(offset_ptr + n, mask=n_ok, other=0)
    sums = tl.load(sum_ptr + stats)
    doubled = total * 4 + SUM_FACTOR * sums[None, :] + offset[:, None]
    out = m[:, None] * N + n[None, :]
    mask = m_ok[:, None] & n_ok[None, :]
    if RAW:
        tl.store(y_ptr + out, tl.trans(doubled), mask=mask)
        return

    token_step = tl.load(scale_ptr + stats) / 2
    channel_step = tl.load(step_ptr + n, mask=n_ok, other=0.0) / 2
    y = doubled.to(tl.float32) * token_step[None, :] * channel_step[:, None]
    if low_rank_ptr is not None:
        low_rank_rows = low_rank_ptr + m_row[None, :] * rank_width
        up_rows = up_ptr + n_row[:, None] * (RG + Q)
        first_n = tile_n * BN
        last_n = min(first_n + BN, N) - 1
        y = _plus_factors(
            y, low_rank_rows, up_rows, n, first_n, last_n, block_rows, RG, Q, RGP, QP, NATIVE
        )
    if bias_ptr is not None:
        y += tl.load(bias_ptr + n, mask=n_ok, other=0.0).to(tl.float32)[:, None]
    tl.store(y_ptr + out, tl.trans(y).to(y_ptr.dtype.element_ty), mask=mask)
