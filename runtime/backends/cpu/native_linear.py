"""The quantized layer on the compiled kernels (`native/`).

The same sums as the reference's (`runtime.backends.reference`):

- smoothing, signs, rotation, token scale and codes in one pass over every token, in float32;
- both factor branches on the rotated token, in float32;
- the product of codes exactly, and in the same pass scales, factors' second half and bias.

Inputs and outputs may be bfloat16; everything between is float32, rounded once in the end.
"""

from collections.abc import Hashable

import torch
from torch import Tensor

from artifacts.codec.quantized_weight import QuantizedWeight
from runtime.backends.cpu.arguments import GELU, NO_ACTIVATION
from runtime.backends.cpu.kernels import Kernels
from runtime.backends.cpu.native_preparation import NativePreparation
from runtime.backends.cpu.packed_weight import Codes, PackedWeight
from runtime.backends.input_key import input_key
from runtime.network.projection import PreparedInput, QuantizableLinear
from schemas.manifest import ScaleRule


class NativeLinear(QuantizableLinear):
    """A quantized linear layer.

    Args:
        weight: the layer's record.
        activation_scale: how a token's scale is found.
        kernels: the variant that computes it.
    """

    known_parts = frozenset(
        {
            "codes",
            "scale",
            "global_up",
            "global_down",
            "global_scale",
            "local_up",
            "local_down",
            "local_scale",
            "bias",
            "smoothing",
        }
    )

    def __init__(
        self, weight: QuantizedWeight, activation_scale: ScaleRule, kernels: Kernels
    ) -> None:
        super().__init__()
        self.name = weight.name
        self.in_features, self.out_features = weight.in_features, weight.out_features
        self._input_key = input_key(weight, activation_scale)
        self._preparation = NativePreparation(weight, activation_scale, kernels)
        self._weight = PackedWeight(weight, kernels)

    def share_key(self, bits: int) -> Hashable:
        """Rotation, signs, smoothing, scale rule and bits: all that `prepare` depends on."""
        return (self._input_key, bits)

    def prepare(self, x: Tensor, bits: int) -> PreparedInput:
        """Smooth, rotate and quantize ``x`` [..., in_features].

        ``values`` of the result is the rotated input, float32.

        Raises:
            RuntimeError: ``x`` asks for a gradient, which the kernels do not have.
            ValueError: a value is not finite; the message names the layer.
        """
        flat = x.reshape(-1, self.in_features)
        rotated, codes, scale = self._preparation(flat, bits, keep_rotated=True)
        assert rotated is not None
        return PreparedInput(
            rotated.view(x.shape),
            None if codes is None else codes.view(x.shape),
            None if scale is None else scale.view(x.shape[:-1]),
            bits,
            x.dtype,
        )

    def apply_to(self, prepared: PreparedInput) -> Tensor:
        """Integer product, factor branches and bias -> [..., out_features]."""
        return self._finish(prepared, NO_ACTIVATION)

    def apply_gelu_to(self, prepared: PreparedInput) -> Tensor:
        """`apply_to`, then GELU with tanh."""
        if prepared.codes is None:
            return super().apply_gelu_to(prepared)
        return self._finish(prepared, GELU)

    def _finish(self, prepared: PreparedInput, activation: int) -> Tensor:
        shape = (*prepared.values.shape[:-1], self.out_features)
        z = prepared.values.reshape(-1, self.in_features)
        if prepared.codes is None or prepared.scale is None:
            return self._weight.unquantized(z).to(prepared.dtype).view(shape)
        factors = self._weight.factors
        codes = Codes(
            prepared.codes.reshape(-1, self.in_features),
            prepared.scale.reshape(-1),
            prepared.bits,
        )
        coordinates = None if factors is None else factors.coordinates(z)
        dtype = torch.bfloat16 if prepared.dtype == torch.bfloat16 else torch.float32
        y = self._weight.apply(codes, coordinates, dtype, activation=activation)
        return y.to(prepared.dtype).view(shape)
