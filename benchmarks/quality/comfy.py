"""A second peer: comfy-kitchen (https://pypi.org/project/comfy-kitchen, Apache-2.0).

The kernels with which ComfyUI runs quantized models, here in their portable form on the CPU. Two
of its layers are met:

- ``convrot_w4a4``: weights and inputs rotated in blocks of up to 256 by a Hadamard matrix without
  signs, both at 4 bits with one scale per output channel and per token.
- ``w4a8_int8``: weights rotated likewise, coded by 16 levels of a Lloyd-Max codebook in groups of
  16 inputs with an 8-bit scale each and decoded to 8-bit integers; inputs rotated, 8 bits a token.

Equal: the checkpoint, the layers that are quantized, everything around them, the sampling. Every
layer gets the same bits and there are no factors. It is optional: without it the rows are left out.
"""

import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.quality.peer import PeerStorage

PACKAGE = "comfy-kitchen"
LAYERS = ("convrot_w4a4", "w4a8_int8")
LARGEST_BLOCK = 256
"""Of its rotations, whose sizes are powers of four."""
W4A4_COLUMNS = 64
"""Its 4-bit product takes inputs in multiples of this."""
GROUP = 16
"""Inputs that share an 8-bit scale: its default."""


def is_available() -> bool:
    """Whether comfy-kitchen is installed."""
    return importlib.util.find_spec("comfy_kitchen") is not None


def version() -> str:
    """Version of comfy-kitchen."""
    return importlib.metadata.version(PACKAGE)


class ComfyLinear(nn.Module):
    """A linear layer that comfy-kitchen computes.

    Attributes:
        stored: what its weight is stored as: codes, scales, codebook.
    """

    def __init__(
        self,
        stored: Sequence[Tensor | None],
        apply: Callable[..., Tensor],
        bias: Tensor | None,
        padding: int,
    ) -> None:
        super().__init__()
        self.stored = [tensor for tensor in stored if tensor is not None]
        self._parts = stored
        self._apply_to = apply
        self.bias = bias
        self._padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output [..., out] for ``x`` [..., in], float32."""
        return self._apply_to(F.pad(x, (0, self._padding)), *self._parts, bias=self.bias)

    @property
    def stored_bits(self) -> int:
        """Bits of the weight as it is held, without the bias."""
        return sum(8 * tensor.numel() * tensor.element_size() for tensor in self.stored)


def apply_comfy(
    network: nn.Module, layers: Sequence[str], settings: Mapping[str, Any]
) -> PeerStorage:
    """Quantize ``layers`` of ``network`` in place.

    Args:
        network: float32, unquantized.
        layers: names of its linear layers.
        settings: ``layer``, one of ``LAYERS``.
    """
    make = _convrot_w4a4 if settings["layer"] == "convrot_w4a4" else _w4a8_int8
    bits = weights = 0
    groups = set()
    for name in layers:
        linear = network.get_submodule(name)
        layer = make(linear.weight.detach(), linear.bias)
        network.set_submodule(name, layer)
        bits += layer.stored_bits
        weights += linear.weight.numel()
        groups.add(GROUP if settings["layer"] == "w4a8_int8" else linear.weight.shape[1])
    return PeerStorage(bits / weights, tuple(sorted(groups)))


def rotation_block(columns: int) -> int:
    """The largest power of four, at most 256, that divides ``columns``."""
    block = LARGEST_BLOCK
    while columns % block:
        block //= 4
    return block


def _convrot_w4a4(weight: Tensor, bias: Tensor | None) -> ComfyLinear:
    import comfy_kitchen  # noqa: PLC0415  (optional)

    # Zeros are added where its product would refuse a width; they are counted as stored.
    padding = -weight.shape[1] % W4A4_COLUMNS
    padded = F.pad(weight, (0, padding))
    block = rotation_block(padded.shape[1])
    codes, scales = comfy_kitchen.quantize_convrot_w4a4_weight(padded, convrot_groupsize=block)

    def apply(x: Tensor, codes: Tensor, scales: Tensor, *, bias: Tensor | None) -> Tensor:
        result: Tensor = comfy_kitchen.convrot_w4a4_linear(
            x, codes, scales, bias=bias, convrot_groupsize=block
        )
        return result

    return ComfyLinear([codes, scales], apply, bias, padding)


def _w4a8_int8(weight: Tensor, bias: Tensor | None) -> ComfyLinear:
    import comfy_kitchen  # noqa: PLC0415

    block = rotation_block(weight.shape[1])
    parts = comfy_kitchen.quantize_w4a8_int8_weight(
        weight, group_size=GROUP, convrot_groupsize=block
    )

    def apply(
        x: Tensor,
        codes: Tensor,
        group_scales: Tensor,
        channel_scales: Tensor,
        correction: Tensor | None,
        codebook: Tensor | None,
        *,
        bias: Tensor | None,
    ) -> Tensor:
        result: Tensor = comfy_kitchen.w4a8_int8_linear(
            x,
            codes,
            group_scales,
            channel_scales,
            codebook=codebook,
            correction=correction,
            bias=bias,
            group_size=GROUP,
            convrot_groupsize=block,
            out_dtype=x.dtype,
        )
        return result

    return ComfyLinear(parts, apply, bias, padding=0)
