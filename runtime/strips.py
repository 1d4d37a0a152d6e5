"""Large images between pixels and latents, a strip of rows at a time.

A picture of 12,000 x 9,000 px takes 1.3 GB as floats, and a dozen tensors of that size lie between
an input and its result. The latent is small beside it and stays whole. Everything on both sides of
it looks only so far around a pixel: bicubic resampling and the colour correction ``wavelet``
exactly, the autoencoder nearly. So strips with a margin give what the whole would, and only the
result exists whole, as the integers that are written.

``adain`` needs the mean of the whole picture; images that are corrected so are not cut.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runtime.images.alpha import resize_visible
from runtime.images.color import correct_color
from runtime.images.pixel_form import PixelForm
from runtime.images.resizing import SCALE, pad_to, resize, working_size
from runtime.pipeline import Pipeline
from runtime.sampling.autoencoder import decode, encode
from runtime.sampling.settings import UpscaleSettings

STRIP_FROM_PIXELS = 2**24
"""Images that the network sees with more pixels than this are cut into strips."""
STRIP_PX = 512
"""Rows. More cost the autoencoder less for margins, and more memory at once."""
MARGIN_PX = 128
"""Above and below a strip: half of what the autoencoder's own tiles overlap by."""
COLOR_MARGIN_PX = 64
"""Rows that the colour correction and a resize of its result see beyond a strip. They look 31 and 8
rows far."""
INPUT_MARGIN_PX = 4
"""Rows of the input that bicubic enlargement sees beyond those that it enlarges, and more."""


def in_strips(height: int, width: int, settings: UpscaleSettings) -> bool:
    """Whether an input of height x width px is large enough to be cut, and can be."""
    size = (SCALE * height, SCALE * width)
    return (
        size[0] * size[1] > STRIP_FROM_PIXELS
        and settings.color_fix != "adain"
        and working_size(*size, settings.min_side_px) == size
    )


@dataclass(frozen=True, eq=False)
class StripedImage:
    """An input, four times as large, row by row.

    Attributes:
        rgb: the input [1, 3, H, W], sRGB-coded, 0 ... 1.
        alpha: its opacity [1, 1, H, W], or None.
        unit: what height and width of the padded image are multiples of.
    """

    rgb: Tensor
    alpha: Tensor | None
    unit: int

    @property
    def height(self) -> int:
        """Rows of the enlarged image."""
        return SCALE * self.rgb.shape[-2]

    @property
    def padded_height(self) -> int:
        """Rows of the padded one."""
        return _up_to_multiple(self.height, self.unit)

    def rows(self, top: int, bottom: int) -> tuple[Tensor, Tensor | None]:
        """Rows of the enlarged image: colours [1, 3, n, 4 W], and opacity likewise."""
        source, inside, size = self._source(SCALE, top, bottom)
        alpha = None if self.alpha is None else self.alpha[..., source, :]
        rgb = resize_visible(self.rgb[..., source, :].float(), alpha, size)
        return rgb[..., inside, :], self.opacity(SCALE, top, bottom)

    def opacity(self, scale: int, top: int, bottom: int) -> Tensor | None:
        """Rows of the opacity, enlarged ``scale`` times."""
        if self.alpha is None:
            return None
        source, inside, size = self._source(scale, top, bottom)
        return resize(self.alpha[..., source, :], size)[..., inside, :]

    def _source(self, scale: int, top: int, bottom: int) -> tuple[slice, slice, tuple[int, int]]:
        """Rows of the input to enlarge, which rows of the outcome are meant, and its size."""
        height, width = self.rgb.shape[-2:]
        first = max(0, top // scale - INPUT_MARGIN_PX)
        last = min(height, -(-bottom // scale) + INPUT_MARGIN_PX)
        inside = slice(top - scale * first, bottom - scale * first)
        return slice(first, last), inside, (scale * (last - first), scale * width)

    def padded_rows(self, top: int, bottom: int) -> Tensor:
        """Rows of the padded image; below the enlarged one they mirror it."""
        enlarged, _ = self.rows(top, min(bottom, self.height))
        return pad_to(enlarged, bottom - top, _up_to_multiple(enlarged.shape[-1], self.unit))


@torch.inference_mode()
def encode_strips(pipeline: Pipeline, image: StripedImage) -> Tensor:
    """The control latent of ``image``, float32 [1, C, h, w].

    Raises:
        ResourceError: memory ran out with the smallest tiles.
    """
    factor = pipeline.vae_factor
    control: Tensor | None = None
    for top, bottom in _strips(image.padded_height):
        above, below = max(0, top - MARGIN_PX), min(image.padded_height, bottom + MARGIN_PX)
        latent = encode(pipeline, image.padded_rows(above, below))
        if control is None:
            size = (*latent.shape[:2], image.padded_height // factor, latent.shape[-1])
            control = latent.new_empty(size)
        inside = latent[..., (top - above) // factor : (bottom - above) // factor, :]
        control[..., top // factor : bottom // factor, :] = inside
    assert control is not None
    return control


@torch.inference_mode()
def decode_strips(
    pipeline: Pipeline,
    image: StripedImage,
    latent: Tensor,
    settings: UpscaleSettings,
    *,
    scale: int,
    form: PixelForm,
) -> NDArray[Any]:
    """The result as integers [H * scale, W * scale, bands].

    Args:
        pipeline: has the autoencoder.
        image: what ``latent`` was sampled for.
        latent: float32 [1, C, h, w].
        settings: says how colours are corrected.
        scale: of the result.
        form: of its pixels.

    Raises:
        PackError: the picture holds values that are not finite.
        ResourceError: memory ran out with the smallest tiles.
    """
    height, width = (scale * side for side in image.rgb.shape[-2:])
    pixels = np.empty((height, width, form.bands), form.dtype)
    shrink = SCALE // scale
    for top, bottom in _strips(image.height):
        rgb, alpha, first = _decoded(pipeline, image, latent, settings, top, bottom)
        size = (rgb.shape[-2] // shrink, width)
        inside = slice((top - first) // shrink, (bottom - first) // shrink)
        colours = resize_visible(rgb, alpha, size)[..., inside, :]
        rows = slice(top // shrink, bottom // shrink)
        pixels[rows] = form.codes(colours, image.opacity(scale, rows.start, rows.stop))
    return pixels


def _decoded(
    pipeline: Pipeline,
    image: StripedImage,
    latent: Tensor,
    settings: UpscaleSettings,
    top: int,
    bottom: int,
) -> tuple[Tensor, Tensor | None, int]:
    """Rows from ``top`` to ``bottom`` and a margin, in true colours; opacity; and the first row."""
    factor = pipeline.vae_factor
    above = max(0, top - MARGIN_PX)
    below = min(image.padded_height, bottom + MARGIN_PX)
    decoded = decode(pipeline, latent[..., above // factor : -(-below // factor), :])
    first, last = max(0, top - COLOR_MARGIN_PX), min(image.height, bottom + COLOR_MARGIN_PX)
    enlarged, alpha = image.rows(first, last)
    rgb = decoded[..., first - above : last - above, : enlarged.shape[-1]]
    return correct_color(rgb, enlarged, settings.color_fix, alpha), alpha, first


def _up_to_multiple(length: int, unit: int) -> int:
    return -(-length // unit) * unit


def _strips(height: int) -> Iterator[tuple[int, int]]:
    for top in range(0, height, STRIP_PX):
        yield top, min(height, top + STRIP_PX)
