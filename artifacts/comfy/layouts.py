"""comfy-kitchen's layouts with one step a row, with which ComfyUI stores and runs linear layers.

Both rotate a weight [out, in] in blocks of B inputs by a symmetric Hadamard matrix without signs,
and code every row with one step, its largest magnitude being the largest code:

    weight = (codes · scale) · H,   H block-diagonal with blocks K ⊗ K ⊗ ... / √B

    K = [[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]]

- ``int8_tensorwise`` with ``convrot``: codes -127 ... 127, int8 [out, in]; scale float32 [out, 1].
  Inputs are rotated and coded in 8 bits by ComfyUI.
- ``convrot_w4a4``: codes -7 ... 7, two in a byte, the even input in its low half, int8
  [out, in / 2]; scale float32 [out]. Inputs are coded in 4 bits. The width is a multiple of 64.

Written from the description of the format; `tests/artifacts/comfy` compares with comfy-kitchen.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from artifacts.comfy.rotation import largest_block, pack_pairs, rotated, unpack_pairs

INT8, W4A4 = "int8_tensorwise", "convrot_w4a4"
W4A4_COLUMNS = 64
"""The 4-bit product takes inputs in multiples of this."""
_LARGEST_CODE = {INT8: 127, W4A4: 7}
_SMALLEST_SCALE = {INT8: 1e-30, W4A4: 1e-10 / 7}
"""Of a row of zeros."""


@dataclass(frozen=True, eq=False)
class ComfyWeight:
    """A weight in one of the layouts.

    Attributes:
        layout: `INT8` or `W4A4`.
        codes, scale: as the layout stores them.
        block: inputs that are rotated together.
    """

    layout: str
    codes: Tensor
    scale: Tensor
    block: int

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a file holds of it, by what follows the layer's name."""
        return {"weight": self.codes, "weight_scale": self.scale}

    @property
    def marker(self) -> dict[str, object]:
        """What a file says of the layer, in ComfyUI's words."""
        if self.layout == INT8:
            return {"format": INT8, "convrot": True, "convrot_groupsize": self.block}
        return {"format": W4A4, "convrot_groupsize": self.block}

    def decode(self) -> Tensor:
        """The weight float32 [out, in] that the codes mean."""
        codes = self.codes if self.layout == INT8 else unpack_pairs(self.codes)
        return rotated(codes.float() * self.scale.reshape(-1, 1), self.block)


def block_of(columns: int, layout: str) -> int | None:
    """The rotation's block for a width; None where the layout cannot hold the width."""
    if layout == W4A4 and columns % W4A4_COLUMNS:
        return None
    return largest_block(columns)


def quantize(weight: Tensor, layout: str) -> ComfyWeight:
    """Code a weight float32 [out, in].

    Raises:
        ValueError: the layout cannot hold its width.
    """
    block = block_of(weight.shape[1], layout)
    if block is None:
        raise ValueError(f"{layout} has no block for {weight.shape[1]} inputs")
    turned = rotated(weight, block)
    largest = _LARGEST_CODE[layout]
    scale = (turned.abs().amax(1, keepdim=True) / largest).clamp(min=_SMALLEST_SCALE[layout])
    codes = (turned / scale).round().clamp(-largest, largest).to(torch.int8)
    if layout == W4A4:
        return ComfyWeight(layout, pack_pairs(codes), scale.flatten(), block)
    return ComfyWeight(layout, codes, scale, block)
