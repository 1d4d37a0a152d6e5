"""Images as callers have them, to the tensors that the runtime takes, and back."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from runtime.images.alpha import on_white
from runtime.images.image_io import read_image
from runtime.images.pixels import from_pixels, to_pixels
from schemas.errors import ImageError, UsageError

OutputType = Literal["pil", "np", "pt"]


def as_tensors(image: Any) -> list[Tensor]:
    """Every picture of ``image`` as float32 [1, 3, H, W], 0 ... 1, sRGB-coded.

    Args:
        image: a PIL image, a path, an array [H, W, 3] or [B, H, W, 3] (uint8, or floats of
            0 ... 1), a tensor [3, H, W] or [B, 3, H, W] of floats of 0 ... 1, or a list of these.

    Raises:
        ImageError: it is none of these, or a file is no image.
    """
    if isinstance(image, Sequence) and not isinstance(image, str | bytes):
        return [tensor for one in image for tensor in as_tensors(one)]
    if isinstance(image, str | os.PathLike):
        loaded = read_image(Path(image))
        return [on_white(loaded.rgb, loaded.alpha)]
    if isinstance(image, Image.Image):
        return [from_pixels(_on_white(image))]
    if isinstance(image, Tensor):
        batch = image[None] if image.ndim == 3 else image
        return [_checked(one[None]) for one in batch.detach().cpu().float()]
    if isinstance(image, np.ndarray) and image.ndim not in (3, 4):
        raise ImageError(f"an array is [H, W, 3] or [B, H, W, 3], not {list(image.shape)}")
    if isinstance(image, np.ndarray):
        batch = torch.from_numpy(np.array(image[None] if image.ndim == 3 else image, order="C"))
        if image.dtype == np.uint8:
            return [from_pixels(one.numpy()) for one in batch]
        if image.dtype.kind == "f" and batch.ndim == 4:
            return [_checked(one[None]) for one in batch.permute(0, 3, 1, 2).float()]
    raise ImageError(f"{type(image).__name__} is no image", hint="give a PIL image, or a path")


def from_tensors(results: Sequence[Tensor], output_type: str) -> Any:
    """What a pipeline returns of ``results``, float [1, 3, H, W]: as diffusers does.

    PIL images come in a list; arrays and tensors as one, [B, H, W, 3] and [B, 3, H, W], or in a
    list where their sizes differ.

    Raises:
        UsageError: there is no such type.
    """
    check_output_type(output_type)
    if output_type == "pil":
        return [Image.fromarray(to_pixels(result)) for result in results]
    clamped = [result.clamp(0, 1) for result in results]
    arrays: list[Any] = (
        clamped if output_type == "pt" else [r.permute(0, 2, 3, 1).numpy() for r in clamped]
    )
    if len({array.shape for array in arrays}) > 1:
        return [array[0] for array in arrays]
    return torch.cat(arrays) if output_type == "pt" else np.concatenate(arrays)


def check_output_type(output_type: str) -> None:
    """Raise UsageError unless there is such an output type."""
    if output_type not in get_args(OutputType):
        raise UsageError(f"output_type {output_type!r}: one of {', '.join(get_args(OutputType))}")


def _on_white(image: Image.Image) -> Any:
    """Upright pixels uint8 [H, W, 3], seen on white where they are transparent."""
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba))[
            ..., :3
        ]
    return np.asarray(upright.convert("RGB"))


def _checked(rgb: Tensor) -> Tensor:
    """Raise ImageError unless ``rgb`` is [1, 3, H, W] within 0 ... 1."""
    if rgb.ndim != 4 or rgb.shape[1] != 3 or not rgb.numel():
        raise ImageError(f"an image must have 3 channels, not the shape {list(rgb.shape[1:])}")
    if not bool(((rgb >= 0) & (rgb <= 1)).all()):
        raise ImageError("floating-point images have values of 0 ... 1")
    return rgb
