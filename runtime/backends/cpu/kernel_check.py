"""Whether a variant of the compiled kernels adds exactly, for every pair of widths."""

import torch

from artifacts.codec.bitpack import pack_codes
from runtime.backends.cpu.arguments import DOUBLED_PRODUCTS, NO_ACTIVATION, GemmArguments
from runtime.backends.cpu.code_order import in_kernel_order
from runtime.backends.cpu.kernels import Kernels, address, threads

_TOKENS, _QUADS = 13, 150
"""One more than a tile of any variant; more than one 16-bit sum of four-bit codes."""


def inexact_pair(kernels: Kernels) -> str | None:
    """The first pair of widths at which sums are wrong, such as ``W4A8``; None where none is."""
    generator = torch.Generator().manual_seed(0)
    inputs, panel = 4 * _QUADS, kernels.panel
    for weight_bits in range(1, 9):
        middle = 2 ** (weight_bits - 1)
        weight = torch.randint(-middle, middle, (panel, inputs), generator=generator)
        weight[0], weight[1] = middle - 1, -middle  # every sum as large as can be
        stored = pack_codes((weight + middle).to(torch.uint8), weight_bits)
        packed, sums = in_kernel_order(stored, weight_bits, panel, inputs, kernels)
        for bits in range(1, 9):
            codes = torch.randint(2**bits, (_TOKENS, inputs), generator=generator)
            codes[0], codes[1] = 2**bits - 1, 0
            rows = codes.to(torch.uint8)
            result = torch.empty(_TOKENS, panel, dtype=torch.int32)
            kernels.gemm(
                GemmArguments(
                    codes=address(rows),
                    code_stride=inputs,
                    tokens=_TOKENS,
                    inputs=inputs,
                    outputs=panel,
                    weight=address(packed),
                    weight_sums=address(sums),
                    output=address(result),
                    output_stride=panel,
                    activation_bits=bits,
                    weight_bits=weight_bits,
                    output_type=DOUBLED_PRODUCTS,
                    activation=NO_ACTIVATION,
                    threads=threads(),
                )
            )
            # float64 holds them exactly, and multiplies faster than integers.
            doubled = (2 * codes - (2**bits - 1)).double() @ (2 * weight + 1).double().T
            if not torch.equal(result.double(), doubled):
                return f"W{weight_bits}A{bits}"
    return None
