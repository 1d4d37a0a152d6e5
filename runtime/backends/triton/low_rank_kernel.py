"""The kernel of the low-rank activations: rotated tokens times the factors' compact ``down``.

Rows of ``down`` [RG + P, K]: the RG rows of SVD-G, then one row per block row p of SVD-L, which
holds the vectors of its blocks (p, 0), (p, 1) ... side by side. The result has the RG numbers of
SVD-G and, for every block, one more: column ``RG + p Q + q``.
"""

# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator"

import triton
import triton.language as tl

from runtime.backends.triton.dot16_kernel import dot16


@triton.jit(do_not_specialize=["M", "tokens"])  # they change, the code does not
def low_rank_kernel(
    z_ptr: tl.tensor,  # [batches, tokens, K], strides (z_batch, z_row, 1)
    down_ptr: tl.tensor,  # [RG + P, K]
    scale_ptr: tl.tensor,  # float32 [RG + P Q], or None
    low_rank_ptr: tl.tensor,  # [M, width], written up to column RG + P Q
    M: tl.tensor,
    tokens: tl.tensor,
    z_batch: tl.tensor,
    z_row: tl.tensor,
    K: tl.tensor,
    width: tl.tensor,
    block_columns: tl.tensor,  # K / Q
    RG: tl.constexpr,
    P: tl.constexpr,
    Q: tl.constexpr,
    RGP: tl.constexpr,  # RG and P, padded
    PP: tl.constexpr,
    NATIVE: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
) -> None:
    """Sums are float32; operands have the dtype of ``z``."""
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    m_ok = m < M
    rows = m // tokens * z_batch + m % tokens * z_row
    ks = tl.arange(0, BK)
    g = tl.arange(0, RGP)
    p = tl.arange(0, PP)
    out = m[:, None] * width
    dtype: tl.constexpr = z_ptr.dtype.element_ty

    sum_global = tl.zeros([BM, RGP], tl.float32)
    for q in range(Q):
        sum_local = tl.zeros([BM, PP], tl.float32)
        for start in range(0, block_columns, BK):
            inside = start + ks < block_columns
            k = q * block_columns + start + ks
            z = tl.load(z_ptr + rows[:, None] + k[None, :], m_ok[:, None] & inside[None, :], 0.0)
            if RG:
                mask = (g < RG)[None, :] & inside[:, None]
                down = tl.load(down_ptr + g[None, :] * K + k[:, None], mask, 0.0).to(dtype)
                sum_global = dot16(z, down, sum_global, NATIVE)
            if P:
                mask = (p < P)[None, :] & inside[:, None]
                down = tl.load(down_ptr + (RG + p)[None, :] * K + k[:, None], mask, 0.0).to(dtype)
                sum_local = dot16(z, down, sum_local, NATIVE)
        if P:
            mask = m_ok[:, None] & (p < P)[None, :]
            if scale_ptr is not None:
                scale = tl.load(scale_ptr + RG + p * Q + q, mask=p < P, other=0.0)
                sum_local *= scale[None, :]
            tl.store(low_rank_ptr + out + (RG + p * Q + q)[None, :], sum_local.to(dtype), mask)
    if RG:
        mask = m_ok[:, None] & (g < RG)[None, :]
        if scale_ptr is not None:
            sum_global *= tl.load(scale_ptr + g, mask=g < RG, other=0.0)[None, :]
        tl.store(low_rank_ptr + out + g[None, :], sum_global.to(dtype), mask)
