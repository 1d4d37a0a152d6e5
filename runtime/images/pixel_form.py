"""An image's channels as the integers of a file: gray, opacity, bit depth."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
import torch
from numpy.typing import NDArray
from torch import Tensor

from runtime.images.alpha import on_white
from runtime.images.folder import OUTPUT_SUFFIXES
from runtime.images.loaded_image import LoadedImage

LUMA = (0.2126, 0.7152, 0.0722)
"""Weights of red, green and blue in gray (ITU-R BT.709); they sum to 1, so gray stays gray."""

DEEP_SUFFIXES = {".png", ".tif", ".tiff"}
WITH_TRANSPARENCY = OUTPUT_SUFFIXES - {".jpg", ".jpeg"}


@dataclass(frozen=True)
class PixelForm:
    """What becomes of an image's channels in a file.

    Attributes:
        gray: one channel instead of three.
        alpha: whether opacity is a channel of its own.
        flattened: whether there is opacity, and the file has none: it is seen on white.
        deep: 16 bits, not 8.
        notes: what the format cannot keep, one phrase each.
    """

    gray: bool
    alpha: bool
    flattened: bool
    deep: bool
    notes: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, like: LoadedImage, *, transparent: bool) -> "PixelForm":
        """That of a result of ``like`` in the format of ``path``'s extension.

        Args:
            path: ends in one of `OUTPUT_SUFFIXES`.
            like: the input: gray and bit depth are taken from it.
            transparent: whether the result has opacity.
        """
        suffix = path.suffix.lower()
        notes = []
        deep = like.sample_bits == 16
        if deep and suffix not in DEEP_SUFFIXES:
            deep = False
            notes.append(f"16 bits written as 8, which is all that {suffix} holds")
        flattened = transparent and suffix not in WITH_TRANSPARENCY
        if flattened:
            notes.append(f"transparency flattened on white: {suffix} has none")
        return cls(like.gray, transparent and not flattened, flattened, deep, tuple(notes))

    @property
    def bands(self) -> int:
        """Channels."""
        return (1 if self.gray else 3) + self.alpha

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Of a channel."""
        return np.uint16 if self.deep else np.uint8

    def codes(self, rgb: Tensor, alpha: Tensor | None) -> NDArray[Any]:
        """Any rows of an image as integers.

        Args:
            rgb: sRGB-coded values [1, 3, H, W]; clamped to 0 ... 1.
            alpha: opacity [1, 1, H, W]; None where there is none.

        Returns:
            Rounded values [H, W, bands].
        """
        if self.flattened:
            rgb = on_white(rgb, alpha)
        if self.gray:
            weights = torch.tensor(LUMA, device=rgb.device).view(1, 3, 1, 1)
            rgb = (rgb * weights).sum(dim=1, keepdim=True)
        channels = rgb
        if self.alpha:
            assert alpha is not None
            channels = torch.cat([rgb, alpha.to(rgb)], dim=1)
        full_scale = np.iinfo(self.dtype).max
        scaled = channels[0].float().clamp(0, 1).mul_(full_scale).round_()
        return scaled.permute(1, 2, 0).cpu().numpy().astype(self.dtype)

    def to_vips(self, pixels: NDArray[Any]) -> pyvips.Image:
        """Values [H, W, bands] as an image; they are not copied where they lie in that order."""
        interpretation = {
            (False, False): "srgb",
            (False, True): "b-w",
            (True, False): "rgb16",
            (True, True): "grey16",
        }[self.deep, self.gray]
        image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels))
        return image.copy(interpretation=interpretation)
