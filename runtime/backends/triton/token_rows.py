"""Tokens of any input as the kernels address them: batches of rows, no needless copies."""

from typing import NamedTuple

from torch import Tensor

_LARGEST_OFFSET = 2**31
"""Kernels count elements in 32 bits, which leaves registers for sums."""


class TokenRows(NamedTuple):
    """Rows of a tensor [batches, tokens, size] whose last stride is 1.

    Attributes:
        values: the tensor that the strides belong to.
        total: rows of all batches, M.
        tokens: rows of one batch.
        batch_stride, row_stride: in elements.
    """

    values: Tensor
    total: int
    tokens: int
    batch_stride: int
    row_stride: int


def token_rows(x: Tensor) -> TokenRows:
    """The rows of ``x`` [..., size], copied only where no two strides describe them.

    Raises:
        ValueError: more elements than the kernels count.
    """
    if x.numel() >= _LARGEST_OFFSET:
        raise ValueError(f"an input of {x.numel()} elements; kernels count to 2^31")
    if x.stride(-1) != 1 and x.shape[-1] > 1:
        x = x.contiguous()
    if x.dim() != 3:
        x = x.reshape(-1, x.shape[-2] if x.dim() > 1 else 1, x.shape[-1])
    batches, tokens, _ = x.shape
    batch_stride, row_stride, _ = x.stride()
    if batches == 1 or batch_stride == tokens * row_stride:
        return TokenRows(x, batches * tokens, max(batches * tokens, 1), 0, row_stride)
    return TokenRows(x, batches * tokens, tokens, batch_stride, row_stride)
