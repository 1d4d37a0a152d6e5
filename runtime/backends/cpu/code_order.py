"""Weight codes in the order in which the compiled kernels read them, and back (`native/gemm.h`).

A panel of output channels goes through the product at once: for every four inputs ("quad") the four
codes of each channel side by side, a byte each. Codes of up to four bits lie two in a byte, those
of a quad's first half of channels in the low halves of its bytes and the others in the high ones;
the kernels take them apart in the first-level cache, once for all tokens of a task.
"""

import torch
from torch import Tensor

from runtime.backends.cpu.arguments import ReorderArguments
from runtime.backends.cpu.kernels import Kernels, address, threads

LARGEST_HALF_BYTE = 4
"""Most bits of a weight's codes that lie two in a byte."""


def in_kernel_order(
    packed: Tensor, weight_bits: int, channels: int, inputs: int, kernels: Kernels
) -> tuple[Tensor, Tensor]:
    """A pack's codes as the kernels read them, and their sums.

    Args:
        packed: uint8, as `artifacts.codec.bitpack` packs [channels, inputs].
        weight_bits: of the codes.
        channels: of the weight, filled up to whole panels with codes that weigh nothing.
        inputs: likewise, to whole quads.
        kernels: whose order it is.

    Returns:
        ``code - 2^(weight_bits - 1)`` as int8 [panels, quads, panel, 4], or up to four bits the
        codes themselves as uint8 [panels, quads, panel / 2, 4]; and the sums of ``code -
        2^(weight_bits - 1)`` over the inputs, int32 [panels * panel].
    """
    panels, quads = -(-channels // kernels.panel), -(-inputs // 4)
    is_half = weight_bits <= LARGEST_HALF_BYTE
    stored = kernels.panel // 2 if is_half else kernels.panel
    dtype = torch.uint8 if is_half else torch.int8
    ordered = torch.empty(panels, quads, stored, 4, dtype=dtype)
    sums = torch.empty(panels * kernels.panel, dtype=torch.int32)
    packed = packed.contiguous()
    kernels.reorder(
        ReorderArguments(
            planes=address(packed),
            ordered=address(ordered),
            sums=address(sums),
            rows=channels,
            columns=inputs,
            bits=weight_bits,
            threads=threads(),
        )
    )
    return ordered, sums


def from_kernel_order(packed: Tensor, weight_bits: int) -> Tensor:
    """`in_kernel_order` undone: int8 [channels, inputs], as far as panels and quads go."""
    by_quad = packed
    if weight_bits <= LARGEST_HALF_BYTE:
        codes = torch.cat([packed & 15, packed >> 4], dim=2)
        by_quad = codes.to(torch.int8) - 2 ** (weight_bits - 1)
    return by_quad.transpose(1, 2).flatten(0, 1).flatten(1)
