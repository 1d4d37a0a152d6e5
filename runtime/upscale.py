"""Upscaling one image by four: enlarge, encode, sample, decode, correct colours.

The order is DiT4SR's:

1. bicubic enlargement; where its shorter side is under ``min_side_px`` it is scaled up further;
2. reflection up to whole patches of latent pixels (DiT4SR cuts instead, which loses edges);
3. VAE encoding to the control latent, ``(z - shift_factor) * scaling_factor``;
4. sampling (`runtime.sampling.sampler`), in tiles where the latent is large;
5. VAE decoding, colour correction against the enlarged image, resize to exactly four times, or to
   the smaller scale that was asked for.

Where the image is large, all but the fourth go by strips of it (`runtime.strips`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from runtime.images.alpha import resize_visible
from runtime.images.batch import DEFAULT_MAX_PIXELS
from runtime.images.color import correct_color
from runtime.images.image_io import (
    check_output_size,
    read_header,
    read_image,
    write_image,
    write_pixels,
)
from runtime.images.made_with import Setting
from runtime.images.pixel_form import PixelForm
from runtime.images.resizing import SCALE, pad_to_multiple, resize, working_size
from runtime.images.result_style import ResultStyle
from runtime.memory import return_freed_memory, with_smaller_tiles
from runtime.pipeline import Pipeline, Prompts
from runtime.sampling.autoencoder import decode, encode
from runtime.sampling.sampler import TOKENS_AT_ONCE, LatentCallback, StepCallback, initial_noise
from runtime.sampling.settings import UpscaleSettings
from runtime.sampling.table_steps import check_table_steps
from runtime.strips import StripedImage, decode_strips, encode_strips, in_strips

TILE_FLOOR = 16
"""Smallest network tile tried when memory runs out, in latent pixels (128 px of the image)."""


@dataclass(frozen=True)
class FileReport:
    """What was done to one file.

    Attributes:
        width, height: of the result, in px.
        notes: conversions the user should know of, one phrase each.
    """

    width: int
    height: int
    notes: tuple[str, ...]


def upscale_file(
    pipeline: Pipeline,
    source: Path,
    output: Path,
    settings: UpscaleSettings,
    *,
    caption: str | None = None,
    made_with: Mapping[str, Setting] | None = None,
    style: ResultStyle | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: StepCallback | None = None,
    on_latent: LatentCallback | None = None,
) -> FileReport:
    """Upscale ``source`` into ``output``, which appears whole or not at all.

    Args:
        pipeline: the model.
        source: the image.
        output: where the result goes.
        settings: checked by `UpscaleSettings.check`.
        caption: positive prompt of this image, one of the pipeline's captions; None for the
            pipeline's own.
        made_with: what the result says of how it was made; None for nothing.
        style: how large the result is, and what of the input it keeps; None for four times and all.
        max_pixels: an input with more is refused.
        progress: called after every sampling step.
        on_latent: likewise, with the latent.

    Raises:
        ImageError: the input is no image, damaged or too large, or its result does not fit the
            output's format.
        ResourceError: memory ran out with the smallest tiles, or the output cannot be written.
    """
    style = style or ResultStyle()
    header = read_header(source, max_pixels=max_pixels)
    check_output_size(output, style.scale * header.width, style.scale * header.height)
    image = read_image(source, max_pixels=max_pixels)
    height, width = image.rgb.shape[-2:]
    # Features are those of the whole picture, which strips never have together.
    if pipeline.picture_features is None and in_strips(height, width, settings):
        form = PixelForm.of(output, image, transparent=image.alpha is not None)
        pixels = upscale_in_strips(
            pipeline,
            image.rgb,
            settings,
            form,
            alpha=image.alpha,
            caption=caption,
            scale=style.scale,
            progress=progress,
            on_latent=on_latent,
        )
        written = write_pixels(
            output,
            pixels,
            form,
            image,
            made_with=made_with,
            quality=style.quality,
            strip=style.strip,
        )
        return FileReport(pixels.shape[1], pixels.shape[0], (*image.notes, *written))
    result = upscale(
        pipeline,
        image.rgb,
        settings,
        alpha=image.alpha,
        caption=caption,
        scale=style.scale,
        progress=progress,
        on_latent=on_latent,
    )
    alpha = None if image.alpha is None else resize(image.alpha, result.shape[-2:])
    written = write_image(
        output,
        result,
        image,
        alpha=alpha,
        made_with=made_with,
        quality=style.quality,
        strip=style.strip,
    )
    return FileReport(result.shape[-1], result.shape[-2], (*image.notes, *written))


@torch.inference_mode()
def upscale(
    pipeline: Pipeline,
    rgb: Tensor,
    settings: UpscaleSettings,
    *,
    alpha: Tensor | None = None,
    caption: str | None = None,
    scale: int = SCALE,
    progress: StepCallback | None = None,
    on_latent: LatentCallback | None = None,
) -> Tensor:
    """Return ``rgb`` [1, 3, H, W], sRGB-coded, 0 ... 1, as float32 [1, 3, 4 H, 4 W] on the CPU.

    Args:
        pipeline: the model.
        rgb: any height and width, from 1 px.
        settings: checked by `UpscaleSettings.check`.
        alpha: opacity [1, 1, H, W], by which colours are weighted; None where all is opaque.
        caption: as `upscale_file` takes it.
        scale: enlargement of the result; below 4 the network's result is resized to it.
        progress: called after every sampling step; starts over when memory runs out.
        on_latent: likewise, with the latent, which it may replace.

    Raises:
        ResourceError: memory ran out with the smallest tiles.
    """
    encoded = encode_image(pipeline, rgb, settings, alpha=alpha, scale=scale)
    latent = sample_latent(
        pipeline,
        encoded.control,
        settings,
        caption=caption,
        condition=encoded.condition,
        progress=progress,
        on_latent=on_latent,
    )
    return decode_image(pipeline, encoded, latent, settings)


@torch.inference_mode()
def upscale_in_strips(
    pipeline: Pipeline,
    rgb: Tensor,
    settings: UpscaleSettings,
    form: PixelForm,
    *,
    alpha: Tensor | None = None,
    caption: str | None = None,
    scale: int = SCALE,
    progress: StepCallback | None = None,
    on_latent: LatentCallback | None = None,
) -> NDArray[Any]:
    """`upscale` of an image that is too large to lie in memory whole (`runtime.strips`).

    Args:
        pipeline: the model.
        rgb: as `upscale` takes it; `runtime.strips.in_strips` says whether it can be cut.
        settings: likewise.
        form: of the result's pixels.
        alpha: as `upscale` takes it.
        caption: likewise.
        scale: likewise.
        progress: likewise.
        on_latent: likewise.

    Returns:
        The result as integers [H * scale, W * scale, bands].

    Raises:
        ResourceError: memory ran out with the smallest tiles.
    """
    image = StripedImage(rgb, alpha, pipeline.vae_factor * pipeline.patch_size)
    control = encode_strips(pipeline, image)
    return_freed_memory()  # the sampler will hold four latents
    latent = sample_latent(
        pipeline, control, settings, caption=caption, progress=progress, on_latent=on_latent
    )
    del control
    return_freed_memory()
    return decode_strips(pipeline, image, latent, settings, scale=scale, form=form)


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image on its way to the network.

    Attributes:
        target: height and width of the result.
        enlarged: what colours are corrected against, float32 [1, 3, h, w] on the CPU.
        alpha: opacity [1, 1, h, w], or None.
        control: the control latent, float32 [1, C, h / f, w / f] of the padded ``enlarged``, with
            f the autoencoder's factor.
        condition: what the network is given of the padded ``enlarged`` in place of prompts, or
            None.
    """

    target: tuple[int, int]
    enlarged: Tensor
    alpha: Tensor | None
    control: Tensor
    condition: Prompts | None = None


@torch.inference_mode()
def encode_image(
    pipeline: Pipeline,
    rgb: Tensor,
    settings: UpscaleSettings,
    *,
    alpha: Tensor | None = None,
    scale: int = SCALE,
) -> EncodedImage:
    """Enlarge, pad and encode ``rgb`` [1, 3, H, W] of opacity ``alpha`` [1, 1, H, W].

    The network sees four times the input whatever the result's ``scale``.

    Raises:
        ResourceError: memory ran out with the smallest tiles.
    """
    height, width = rgb.shape[-2:]
    target = (scale * height, scale * width)
    # From the input in one step, not from the enlarged image: a second resampling would blur.
    size = working_size(SCALE * height, SCALE * width, settings.min_side_px)
    enlarged = resize_visible(rgb.float(), alpha, size)
    unit = pipeline.vae_factor * pipeline.patch_size
    padded = pad_to_multiple(enlarged, unit, at_least=settings.min_side_px)
    enlarged_alpha = None if alpha is None else resize(alpha, size)
    control = encode(pipeline, padded)
    return EncodedImage(target, enlarged, enlarged_alpha, control, pipeline.condition_on(padded))


@torch.inference_mode()
def sample_latent(
    pipeline: Pipeline,
    control: Tensor,
    settings: UpscaleSettings,
    *,
    caption: str | None = None,
    condition: Prompts | None = None,
    progress: StepCallback | None = None,
    on_latent: LatentCallback | None = None,
) -> Tensor:
    """Sample the latent [1, C, h, w], float32, that belongs to a control latent of that shape.

    Args:
        pipeline: the model.
        control: the control latent.
        settings: checked by `UpscaleSettings.check`.
        caption: as `upscale_file` takes it.
        condition: what `Pipeline.condition_on` gave of the picture.
        progress: called after every sampling step.
        on_latent: likewise, with the latent, which it may replace.

    Raises:
        ValueError: the network reads features of the picture, and there is no condition.
        ResourceError: memory ran out with the smallest tiles.
        UsageError: the pipeline has no modulations for a step.
    """
    check_table_steps(pipeline.table, settings)
    if condition is None and pipeline.picture_features is not None:
        raise ValueError("this network samples with the picture's own features")
    prompts = pipeline.prompts_for(caption) if condition is None else condition
    # Not every family's loop has to know it.
    watched = {} if on_latent is None else {"on_latent": on_latent}
    # A tile that no side needs would have to be halved in vain before anything shrinks.
    largest = min(settings.tile, max(control.shape[-2:]))
    return with_smaller_tiles(
        lambda tile: pipeline.sample(
            pipeline.velocity,
            control.to(pipeline.dtype),
            prompts,
            settings if tile == settings.tile else settings.with_tile(tile, pipeline.patch_size),
            noise=initial_noise(tuple(control.shape), settings.seed),
            patch_size=pipeline.patch_size,
            bits_at=pipeline.bits_at,
            # Where memory ran out, smaller tiles are to take less of it, not to come in batches.
            tokens_at_once=TOKENS_AT_ONCE if tile == largest else 0,
            progress=progress,
            **watched,
        ),
        largest,
        TILE_FLOOR,
        pipeline.patch_size,
        "sampling",
        pipeline.release_graphs,
    )


@torch.inference_mode()
def decode_image(
    pipeline: Pipeline, encoded: EncodedImage, latent: Tensor, settings: UpscaleSettings
) -> Tensor:
    """Decode ``latent``, correct its colours and bring it to size: float32 [1, 3, *target].

    Raises:
        ResourceError: memory ran out with the smallest tiles.
    """
    enlarged = encoded.enlarged
    decoded = decode(pipeline, latent)[..., : enlarged.shape[-2], : enlarged.shape[-1]]
    corrected = correct_color(decoded, enlarged, settings.color_fix, encoded.alpha)
    return resize_visible(corrected, encoded.alpha, encoded.target)
