"""The layer's parts as operators, so that `torch.compile` goes around them, not through.

What stands between layers (norms, modulation, GELU, residuals) is then compiled as one piece up to
the layer's edge. Operators take tensors and numbers only; a layer goes by the number it registered
under.
"""

from typing import Protocol, cast
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn


class Halves(Protocol):
    """What an operator needs of a layer, see `linear.TritonLinear`."""

    residency: str
    out_features: int

    def quantized(self, x: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Codes, scales, sums, and rotated tokens or an empty tensor."""

    def finished(self, values: Tensor, codes: Tensor, scale: Tensor, sums: Tensor) -> Tensor:
        """The layer's result."""

    def unquantized(self, x: Tensor) -> Tensor:
        """The layer's result with activations as they are."""


_LAYERS: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()


def register(layer: nn.Module) -> int:
    """A number that stands for ``layer`` as long as it lives."""
    handle = 1 + max(_LAYERS, default=0)
    _LAYERS[handle] = layer
    return handle


def _layer(handle: int) -> Halves:
    return cast("Halves", _LAYERS[handle])


@torch.library.custom_op("qdit4sr::prepare", mutates_args=())
def prepare(x: Tensor, layer: int, bits: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`Halves.quantized` of a registered layer."""
    return _layer(layer).quantized(x, bits)


@prepare.register_fake
def _(x: Tensor, layer: int, bits: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    lead = x.shape[:-1]
    rotated = x.new_empty(x.shape if _layer(layer).residency == "packed" else (0,))
    return (
        x.new_empty(x.shape, dtype=torch.int8),
        x.new_empty(lead, dtype=torch.float32),
        x.new_empty(lead, dtype=torch.int32),
        rotated,
    )


@torch.library.custom_op("qdit4sr::apply", mutates_args=())
def apply(values: Tensor, codes: Tensor, scale: Tensor, sums: Tensor, layer: int) -> Tensor:
    """`Halves.finished` of a registered layer."""
    return _layer(layer).finished(values, codes, scale, sums)


@apply.register_fake
def _(values: Tensor, codes: Tensor, scale: Tensor, sums: Tensor, layer: int) -> Tensor:
    return values.new_empty((*codes.shape[:-1], _layer(layer).out_features))


@torch.library.custom_op("qdit4sr::unquantized", mutates_args=())
def unquantized(x: Tensor, layer: int) -> Tensor:
    """`Halves.unquantized` of a registered layer."""
    return _layer(layer).unquantized(x)


@unquantized.register_fake
def _(x: Tensor, layer: int) -> Tensor:
    return x.new_empty((*x.shape[:-1], _layer(layer).out_features))
