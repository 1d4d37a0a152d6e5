"""Weight codes in the order in which the compiled kernels read them, and back (`native/gemm.h`).

A panel of output channels goes through the product at once: for every four inputs ("quad") the four
codes of each channel side by side, a byte each. Codes of up to four bits lie two in a byte, those
of a quad's first half of channels in the low halves of its bytes and the others in the high ones;
the kernels take them apart in the first-level cache, once for all tokens of a task.
"""

import torch
from torch import Tensor

LARGEST_HALF_BYTE = 4
"""Most bits of a weight's codes that lie two in a byte."""


def in_kernel_order(signed: Tensor, weight_bits: int, panel: int) -> Tensor:
    """Codes as the kernels read them.

    Args:
        signed: int8 [channels, inputs], ``code - 2^(weight_bits - 1)``; channels a multiple of
            ``panel``, inputs of 4.
        weight_bits: of the codes.
        panel: channels of a panel, an even number.

    Returns:
        int8 [panels, quads, panel, 4]; up to four bits uint8 [panels, quads, panel / 2, 4], the
        codes themselves.
    """
    by_quad = signed.view(-1, panel, signed.shape[1] // 4, 4).transpose(1, 2)
    if weight_bits > LARGEST_HALF_BYTE:
        return by_quad.contiguous()
    codes = (by_quad + 2 ** (weight_bits - 1)).to(torch.uint8)
    low, high = codes.chunk(2, dim=2)
    return (low | high << 4).contiguous()


def from_kernel_order(packed: Tensor, weight_bits: int) -> Tensor:
    """`in_kernel_order` undone: int8 [channels, inputs]."""
    by_quad = packed
    if weight_bits <= LARGEST_HALF_BYTE:
        codes = torch.cat([packed & 15, packed >> 4], dim=2)
        by_quad = codes.to(torch.int8) - 2 ** (weight_bits - 1)
    return by_quad.transpose(1, 2).flatten(0, 1).flatten(1)
