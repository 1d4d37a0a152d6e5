"""How a block applies one of its linear layers, or several that read the same input.

The bits of a timestep arrive as an argument and are passed down to every layer; no module holds
the current timestep as state, so one network can serve several timesteps at once.

What a quantized layer does with its input alone (smoothing, rotation, quantization per token) does
not depend on the layer's weight. Queries, keys and values read one input, so this is done once for
all of them, with the results of separate calls, bit for bit.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from schemas.bit_widths import UNQUANTIZED

ActivationBits = Mapping[str, int]
"""Layer name -> activation bits at one timestep, or `UNQUANTIZED`."""


@dataclass(frozen=True)
class PreparedInput:
    """An input after everything that layers which share it have in common.

    Attributes:
        values: float [..., in_features], what unquantized parts of a layer read; whether rotated
            or not is the backend's choice.
        codes: uint8 [..., in_features], or None with unquantized activations.
        scale: float32 [...], one per token, or None with unquantized activations.
        bits: of the activations.
        dtype: of the input, and so of the results.
    """

    values: Tensor
    codes: Tensor | None
    scale: Tensor | None
    bits: int
    dtype: torch.dtype

    def first(self, tokens: int) -> "PreparedInput":
        """The same of the first ``tokens`` along the last but one dimension.

        Quantization is per token, so a part of the result is the result of the part.
        """
        return replace(
            self,
            values=self.values[..., :tokens, :],
            codes=None if self.codes is None else self.codes[..., :tokens, :],
            scale=None if self.scale is None else self.scale[..., :tokens],
        )


class QuantizableLinear(nn.Module):
    """What a quantized layer must offer to stand in a block: a name and a call with its bits.

    Attributes:
        name: the layer's name in the network.
        can_be_captured: whether a CUDA graph can hold the layer, because it waits for the device
            nowhere while one is captured; the reference looks at every scale.
    """

    known_parts: ClassVar[frozenset[str]] = frozenset()
    """Rows of `artifacts.codec.layer_parts.LAYER_PARTS` that the class computes with: a layer that
    has others must not be left to it."""

    name: str
    can_be_captured: bool = False

    def share_key(self, bits: int) -> Hashable:
        """What `prepare` depends on beside the input: layers of equal keys may share its result."""
        raise TypeError(f"{type(self).__name__} does not define share_key")

    def prepare(self, x: Tensor, bits: int) -> PreparedInput:
        """Smooth, rotate and quantize ``x`` [..., in_features] with ``bits`` bits."""
        raise TypeError(f"{type(self).__name__} does not define prepare")

    def apply_to(self, prepared: PreparedInput) -> Tensor:
        """Finish the layer: -> [..., out_features] in the dtype of the input."""
        raise TypeError(f"{type(self).__name__} does not define apply_to")

    def apply_gelu_to(self, prepared: PreparedInput) -> Tensor:
        """`apply_to`, then GELU with tanh; a backend that can does both in one pass."""
        return F.gelu(self.apply_to(prepared), approximate="tanh")

    def forward(self, x: Tensor, bits: int) -> Tensor:
        """Apply the layer to ``x`` [..., in_features] with activations at ``bits`` bits.

        Args:
            x: the layer's input.
            bits: activation bits 1 ... 8, or `UNQUANTIZED`.

        Raises:
            ValueError: a value is not finite; the message names the layer.
        """
        return self.apply_to(self.prepare(x, bits))


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
        quantized: Tensor = layer(x, _bits_of(layer, bits))
        return quantized
    plain: Tensor = layer(x)
    return plain


def project_gelu(layer: nn.Module, x: Tensor, bits: ActivationBits | None) -> Tensor:
    """`project`, then GELU with tanh, in one pass where the layer's backend can.

    A layer that somebody watches through a hook is called like any other module.
    """
    if isinstance(layer, QuantizableLinear) and not _is_watched(layer):
        return layer.apply_gelu_to(layer.prepare(x, _bits_of(layer, bits)))
    return F.gelu(project(layer, x, bits), approximate="tanh")


def project_all(
    layers: Sequence[nn.Module],
    x: Tensor,
    bits: ActivationBits | None,
    *,
    first: Sequence[int | None] | None = None,
) -> list[Tensor]:
    """Apply several layers to one input, sharing what they have in common.

    A layer that somebody watches through a hook is called like any other module and shares nothing:
    a shared input would pass the hook by.

    Args:
        layers: each as in `project`.
        x: the input of all of them, [..., tokens, in_features].
        bits: as in `project`.
        first: for every layer how many of the first tokens it reads, None for all; None where
            every layer reads all tokens.

    Returns:
        What `project` returns for every layer, bit for bit.

    Raises:
        KeyError: ``bits`` has no entry for a quantized layer.
    """
    counts = [None] * len(layers) if first is None else first
    keys = [_share_key(layer, bits) for layer in layers]
    prepared: dict[Hashable, PreparedInput] = {}
    results = []
    for layer, key, n in zip(layers, keys, counts, strict=True):
        if not isinstance(layer, QuantizableLinear) or key is None or keys.count(key) == 1:
            results.append(project(layer, x if n is None else x[..., :n, :], bits))
            continue
        if key not in prepared:
            prepared[key] = layer.prepare(x, _bits_of(layer, bits))
        shared = prepared[key]
        results.append(layer.apply_to(shared if n is None else shared.first(n)))
    return results


def _share_key(layer: nn.Module, bits: ActivationBits | None) -> Hashable:
    """What a layer's input has in common with those of equal keys; None for nothing at all."""
    if not isinstance(layer, QuantizableLinear) or _is_watched(layer):
        return None
    return layer.share_key(_bits_of(layer, bits))


def _is_watched(layer: nn.Module) -> bool:
    return bool(layer._forward_pre_hooks or layer._forward_hooks)


def _bits_of(layer: QuantizableLinear, bits: ActivationBits | None) -> int:
    return UNQUANTIZED if bits is None else bits[layer.name]


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``x * (1 + scale) + shift`` with x [B, tokens, C] and shift, scale [B, C]."""
    return torch.addcmul(shift[:, None], x, 1 + scale[:, None])
