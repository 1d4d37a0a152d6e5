"""Weight codes and factors in the order in which the compiled kernels read them.

Codes c become signed bytes ``s = c - 2^(b-1)``, so a level ``c - (2^b - 1)/2`` is ``s + 1/2``. Of
all ways to centre them this has the smallest magnitudes, which decides how many products fit the
16-bit sums of processors without VNNI (`native/dot.h`).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from artifacts.codec.quantized_weight import QuantizedWeight
from runtime.backends.cpu.arguments import (
    BFLOAT16,
    DOUBLED_PRODUCTS,
    FLOAT32,
    NO_ACTIVATION,
    GemmArguments,
)
from runtime.backends.cpu.code_order import from_kernel_order, in_kernel_order
from runtime.backends.cpu.factors import Factors
from runtime.backends.cpu.kernels import Kernels, address, threads

_MAX_INPUTS = (2**31 - 1) // 255**2
"""Most inputs whose sum of products of doubled levels fits 32 bits."""
_OUTPUT_TYPES = {
    torch.float32: FLOAT32,
    torch.bfloat16: BFLOAT16,
    torch.int32: DOUBLED_PRODUCTS,
}


class Codes(NamedTuple):
    """Quantized tokens.

    Attributes:
        values: uint8 [tokens, in_features].
        scale: float32 [tokens].
        bits: of a code.
    """

    values: Tensor
    scale: Tensor
    bits: int


class PackedWeight:
    """A layer's weight: codes, scales, bias and factors.

    Args:
        weight: the layer's record.
        kernels: whose order it gets.

    Attributes:
        factors: both factor branches, or None without.

    Raises:
        ValueError: more inputs than 32-bit sums hold.
    """

    def __init__(self, weight: QuantizedWeight, kernels: Kernels) -> None:
        self.in_features, self.out_features = weight.in_features, weight.out_features
        if self.in_features > _MAX_INPUTS:
            raise ValueError(f"{self.in_features} inputs: 32-bit sums hold {_MAX_INPUTS}")
        self.weight_bits = weight.weight_bits
        self._kernels = kernels
        self._packed, self._sums = in_kernel_order(
            weight.codes, self.weight_bits, self.out_features, self.in_features, kernels
        )
        missing = -self.out_features % kernels.panel
        self._scale = F.pad(weight.scale, (0, missing))
        bias = torch.zeros(self.out_features) if weight.bias is None else weight.bias.float()
        self._bias = F.pad(bias, (0, missing))
        self.factors = Factors.of(weight, kernels)

    def apply(
        self,
        codes: Codes,
        coordinates: Tensor | None,
        dtype: torch.dtype,
        *,
        activation: int = NO_ACTIVATION,
    ) -> Tensor:
        """Finish the layer.

        Args:
            codes: of the rotated tokens.
            coordinates: `Factors.coordinates` of the same tokens; None leaves the factors out.
            dtype: float32 or bfloat16; or int32 for the sums of products of doubled levels alone,
                which the tests compare.
            activation: what is applied to the output.

        Returns:
            ``dtype`` [tokens, out_features].
        """
        values = codes.values
        if self.in_features % 4:
            values = F.pad(values, (0, -self.in_features % 4))
        values = values.contiguous()
        output = torch.empty(len(values), self.out_features, dtype=dtype)
        factors = self.factors if coordinates is not None else None
        self._kernels.gemm(
            GemmArguments(
                codes=address(values),
                code_stride=values.shape[1],
                tokens=len(values),
                inputs=self.in_features,
                outputs=self.out_features,
                weight=address(self._packed),
                weight_sums=address(self._sums),
                token_scale=address(codes.scale),
                channel_scale=address(self._scale),
                bias=address(self._bias),
                coordinates=address(coordinates),
                rank=factors.rank if factors else 0,
                global_rank=factors.global_rank if factors else 0,
                local_count=factors.local_count if factors else 0,
                local_begin=address(factors.local_begin) if factors else None,
                up=address(factors.up) if factors else None,
                output=address(output),
                output_stride=self.out_features,
                activation_bits=codes.bits,
                weight_bits=self.weight_bits,
                output_type=_OUTPUT_TYPES[dtype],
                activation=activation,
                threads=threads(),
            )
        )
        return output

    def odd_integers(self, dtype: torch.dtype) -> Tensor:
        """Twice the levels of the weight, ``dtype`` [out, in], unpacked again."""
        rows = from_kernel_order(self._packed, self.weight_bits)
        signed = rows[: self.out_features, : self.in_features].to(dtype)
        return signed.mul_(2).add_(1)

    def unquantized(self, z: Tensor) -> Tensor:
        """The layer for rotated tokens as they are, float32 [tokens, in] -> [tokens, out]."""
        half_step = self._scale[: self.out_features] / 2
        y = (z @ self.odd_integers(torch.float32).T).mul_(half_step)
        y += self._bias[: self.out_features]
        if self.factors is not None:
            self.factors.add_to(y, self.factors.coordinates(z))
        return y
