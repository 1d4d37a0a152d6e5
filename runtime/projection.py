"""How a block applies one of its linear layers, quantized or not.

The bits of a timestep arrive as an argument and are passed down to every layer; no module holds
the current timestep as state, so one network can serve several timesteps at once.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

ActivationBits = Mapping[str, int]
"""Layer name -> activation bits at one timestep; 16 leaves the layer's input unquantized."""


class QuantizableLinear(nn.Module):
    """What a quantized layer must offer to stand in a block: a name and a call with its bits."""

    name: str

    def forward(self, x: Tensor, bits: int) -> Tensor:
        """Apply the layer to ``x`` [..., in_features] with activations at ``bits`` bits."""
        raise TypeError(f"{type(self).__name__} does not define forward")


def project(layer: nn.Module, x: Tensor, bits: ActivationBits | None) -> Tensor:
    """Apply ``layer`` to ``x`` [..., in_features] -> [..., out_features].

    Args:
        layer: an ``nn.Linear``, or a quantized layer that looks its own name up in ``bits``.
        x: the layer's input.
        bits: this timestep's column of the bit grid; None runs quantized layers on unquantized
            activations (16 bits), as calibration does.

    Raises:
        KeyError: ``bits`` has no entry for a quantized layer.
    """
    if isinstance(layer, QuantizableLinear):
        quantized: Tensor = layer(x, 16 if bits is None else bits[layer.name])
        return quantized
    plain: Tensor = layer(x)
    return plain


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``x * (1 + scale) + shift`` with x [B, tokens, C] and shift, scale [B, C]."""
    return torch.addcmul(shift[:, None], x, 1 + scale[:, None])
