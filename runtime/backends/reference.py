"""The quantized layer in plain torch, on any device: what every faster backend must equal.

One layer computes (Q-DiT4SR Eq. 11)

    z = (x / smoothing * signs) H                                smoothing (if any), rotation
    y = Q_w(residual) Q_a(z) + (SVD-G + SVD-L) z + bias

with one scale per token for ``Q_a`` and one per output channel for ``Q_w``. The first product is a
product of integers: a level ``c - (2^b - 1)/2`` is half of the odd integer ``2c - (2^b - 1)``, so
both operands are doubled, multiplied exactly, and the quarter goes into the scales.
"""

from collections.abc import Hashable

import torch
from torch import Tensor

from artifacts.codec.gaussian_quantizer import quantize_rows
from artifacts.codec.quantized_weight import QuantizedWeight
from runtime.backends.input_key import input_key
from runtime.network.projection import PreparedInput, QuantizableLinear
from schemas.bit_widths import UNQUANTIZED
from schemas.manifest import ScaleRule

_EXACT_IN_FLOAT32 = 2**24
"""Every integer up to here is a float32, so sums that stay below it are exact in any order."""


def odd_integers(codes: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """Twice the levels of ``codes``: ``2c - (2^b - 1)``, odd integers of magnitude < 2^b."""
    return codes.to(dtype).mul_(2).sub_(2**bits - 1)


def integer_product(a: Tensor, a_bits: int, w: Tensor, w_bits: int) -> Tensor:
    """Exact product of doubled levels, in a float dtype that holds every partial sum.

    Args:
        a: activation codes uint8 [tokens, in_features].
        w: weight codes uint8 [out_features, in_features].
        a_bits: bits of the activation codes, 1 ... 8.
        w_bits: bits of the weight codes, 1 ... 8.

    Returns:
        ``(2a - (2^a_bits - 1)) (2w - (2^w_bits - 1))ᵀ`` [tokens, out_features]: integers, held in
        float32 where they fit and in float64 otherwise (floats, because that is what every device
        can multiply).
    """
    largest = a.shape[-1] * (2**a_bits - 1) * (2**w_bits - 1)
    dtype = torch.float32 if largest < _EXACT_IN_FLOAT32 else torch.float64
    return odd_integers(a, a_bits, dtype) @ odd_integers(w, w_bits, dtype).T


class ReferenceLinear(QuantizableLinear):
    """A quantized linear layer.

    Args:
        weight: the layer's record.
        activation_scale: how a token's scale is found.
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

    codes: Tensor
    scale: Tensor
    signs: Tensor | None
    smoothing: Tensor | None
    bias: Tensor | None
    global_up: Tensor | None
    global_down: Tensor | None
    global_scale: Tensor | None
    local_up: Tensor | None
    local_down: Tensor | None
    local_scale: Tensor | None

    def __init__(self, weight: QuantizedWeight, activation_scale: ScaleRule) -> None:
        super().__init__()
        self.name = weight.name
        self.weight_bits = weight.weight_bits
        self.rotation = weight.rotation
        self.activation_scale, self.token_step = activation_scale, weight.token_step
        self._input_key = input_key(weight, activation_scale)
        # uint8, whatever the bits: a pack's bit planes are for storage, not for arithmetic.
        constants = {
            **weight.parts(),
            "codes": weight.unpacked_codes(),
            "signs": weight.signs,
        }
        for name, value in constants.items():  # as buffers, they move with the module
            self.register_buffer(name, value, persistent=False)

    def share_key(self, bits: int) -> Hashable:
        """Rotation, signs, smoothing, scale rule and bits: all that `prepare` depends on."""
        return (self._input_key, bits)

    def prepare(self, x: Tensor, bits: int) -> PreparedInput:
        """Smooth and rotate ``x`` [..., in_features] in float32, and quantize it per token.

        ``values`` of the result is the rotated input.

        Raises:
            ValueError: a value is not finite; the message names the layer.
        """
        z = x if self.smoothing is None else x / self.smoothing
        z = self.rotation.apply(z, self.signs)
        if bits == UNQUANTIZED:
            return PreparedInput(z, None, None, bits, x.dtype)
        try:
            codes, scale = quantize_rows(z, bits, self.activation_scale, self.token_step)
        except ValueError as cause:
            raise ValueError(f"layer {self.name}: {cause}") from cause
        return PreparedInput(z, codes, scale, bits, x.dtype)

    def apply_to(self, prepared: PreparedInput) -> Tensor:
        """Both products and the bias, in float32 until the last rounding."""
        z = prepared.values.flatten(0, -2)  # [tokens, in_features]
        y = self.residual_product(prepared) + self.factor_product(z)
        if self.bias is not None:
            y += self.bias.float()
        return y.to(prepared.dtype).unflatten(0, prepared.values.shape[:-1])

    def residual_product(self, prepared: PreparedInput) -> Tensor:
        """``Q_w(residual) Q_a(z)`` -> [tokens, out_features]."""
        if prepared.codes is None or prepared.scale is None:
            z = prepared.values.flatten(0, -2)
            weight = odd_integers(self.codes, self.weight_bits, z.dtype)
            return (z @ weight.T) * (self.scale / 2)
        codes = prepared.codes.flatten(0, -2)
        product = integer_product(codes, prepared.bits, self.codes, self.weight_bits)
        return product.float() * (prepared.scale.reshape(-1, 1) / 2) * (self.scale / 2)

    def factor_product(self, z: Tensor) -> Tensor:
        """``(SVD-G + SVD-L) z`` on the unquantized ``z`` [tokens, in_features]."""
        y = z.new_zeros(z.shape[0], self.codes.shape[0])
        if self.global_up is not None and self.global_down is not None:
            inner = z @ self.global_down.to(z).T
            if self.global_scale is not None:
                inner *= self.global_scale
            y += inner @ self.global_up.to(z).T
        if self.local_up is not None and self.local_down is not None:
            blocks = z.unflatten(1, (self.local_down.shape[1], -1))  # [tokens, Q, s_i]
            inner = torch.einsum("tqj,pqj->tpq", blocks, self.local_down.to(z))
            if self.local_scale is not None:
                inner *= self.local_scale
            y += torch.einsum("tpq,pqi->tpi", inner, self.local_up.to(z)).flatten(1)
        return y
