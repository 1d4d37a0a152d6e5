"""comfy-kitchen's layout of 4-bit weights for 8-bit inputs, ``asym_w4a8_int8``.

A weight [out, in] is rotated as in `artifacts.comfy.layouts`. Every 16 inputs of a row share a step
in 8-bit floating point, every row one in float32, and a code names one of 16 levels of a codebook:

    weight = (round(codebook[code] · group_step) · row_step) · H,   the rounded one -127 ... 127

so that kernels multiply 8-bit integers. Two codes lie in a byte, the even input's in its low half.
(The layout also has codes without a codebook and an offset per group, which gave it its name; they
are not written here.)

Written from the description of the format; `tests/artifacts/comfy` compares with comfy-kitchen.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from artifacts.comfy.rotation import largest_block, pack_pairs, rotated, unpack_pairs

W4A8 = "asym_w4a8_int8"
GROUP = 16
LARGEST_LEVEL = 127
STEP_DTYPE = torch.float8_e4m3fn
CODEBOOK = (
    *(-0.980602, -0.794529, -0.638165, -0.500986, -0.377321, -0.263187, -0.155210, -0.050720),
    *(0.052541, 0.156985, 0.265284, 0.379533, 0.502636, 0.638953, 0.794876, 0.980671),
)
"""The Lloyd-Max levels of Gaussian numbers by the largest of their group, as comfy-kitchen 0.2.40
has them: a file may hold others, but its fastest kernels know these alone."""
REFITS = 2
_SMALLEST = 1e-8
"""Of the largest magnitude of a group and of a row's step: where all is zero."""


@dataclass(frozen=True, eq=False)
class CodebookWeight:
    """A weight in this layout.

    Attributes:
        codes: int8 [out, in / 2].
        group_step: float8 e4m3 [out, in / 16].
        row_step: float32 [out].
        codebook: float32 [16], ascending.
        block: inputs that are rotated together.
    """

    codes: Tensor
    group_step: Tensor
    row_step: Tensor
    codebook: Tensor
    block: int

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a file holds of it, by what follows the layer's name."""
        return {
            "weight": self.codes,
            "weight_s_rel": self.group_step,
            "weight_s_channel": self.row_step,
            "weight_codebook": self.codebook,
        }

    @property
    def marker(self) -> dict[str, object]:
        """What a file says of the layer, in ComfyUI's words."""
        return {"format": W4A8, "group_size": GROUP, "convrot_groupsize": self.block}

    def decode(self) -> Tensor:
        """The weight float32 [out, in] that the codes mean."""
        codes = (unpack_pairs(self.codes) & 15).view(len(self.codes), -1, GROUP)
        values = _levels(self.codebook, self.group_step).gather(2, codes.long())
        return rotated(values.flatten(1) * self.row_step[:, None], self.block)


def block_for_codebook(columns: int) -> int | None:
    """The rotation's block for a width; None where the layout cannot hold it."""
    return None if columns % GROUP else largest_block(columns)


def quantize_to_codebook(weight: Tensor) -> CodebookWeight:
    """Code a weight float32 [out, in].

    Steps of groups begin at the largest magnitude and are fitted to the levels by least squares,
    in turns with the codes (Lloyd's iteration); then they are rounded, and codes chosen once more
    among the integers that are left.

    Raises:
        ValueError: the layout cannot hold its width.
    """
    block = block_for_codebook(weight.shape[1])
    if block is None:
        raise ValueError(f"{W4A8} has no block for {weight.shape[1]} inputs")
    codebook = torch.tensor(CODEBOOK)
    groups = rotated(weight, block).reshape(len(weight), -1, GROUP)
    step = groups.abs().amax(2, keepdim=True).clamp_min(_SMALLEST)
    chosen = codebook[_nearest(codebook, groups / step)]
    for _ in range(REFITS):
        fitted = (groups * chosen).sum(2, keepdim=True) / chosen.square().sum(2, keepdim=True)
        step = fitted.clamp_min(_SMALLEST)
        chosen = codebook[_nearest(codebook, groups / step)]
    row_step = ((chosen * step).abs().amax((1, 2)) / LARGEST_LEVEL).clamp_min(_SMALLEST)
    group_step = (step.squeeze(2) / row_step[:, None]).to(STEP_DTYPE)
    levels = _levels(codebook, group_step)
    codes = _nearest(levels, groups / row_step[:, None, None]).flatten(1).to(torch.int8)
    return CodebookWeight(pack_pairs(codes), group_step, row_step, codebook, block)


def _levels(codebook: Tensor, group_step: Tensor) -> Tensor:
    """The integers [out, groups, 16], as float32, that the codes of every group mean."""
    levels = (codebook * group_step.float()[..., None]).round()
    return levels.clamp(-LARGEST_LEVEL, LARGEST_LEVEL)


def _nearest(levels: Tensor, values: Tensor) -> Tensor:
    """Index of the nearest of the ascending ``levels`` [..., 16], the lower one of two.

    Args:
        levels: [16], or [out, groups, 16] with levels for every group.
        values: [out, groups, n].
    """
    middles = ((levels[..., 1:] + levels[..., :-1]) / 2).expand(*values.shape[:-1], -1)
    return torch.searchsorted(middles.contiguous(), values.contiguous())
