"""Upscaling one image by four: enlarge, encode, sample, decode, correct colours.

The order is DiT4SR's:

1. bicubic enlargement; where its shorter side is under ``min_side_px`` it is scaled up further;
2. reflection up to whole patches of latent pixels (DiT4SR cuts instead, which loses edges);
3. VAE encoding to the control latent, ``(z - shift_factor) * scaling_factor``;
4. sampling (`runtime.sampling.sampler`), in tiles where the latent is large;
5. VAE decoding, colour correction against the enlarged image, resize to exactly four times.

Memory that runs out is answered first by giving up CUDA graphs, then with smaller tiles.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.images.batch import DEFAULT_MAX_PIXELS
from runtime.images.color import correct_color
from runtime.images.image_io import (
    check_output_size,
    read_header,
    read_image,
    write_image,
)
from runtime.pipeline import Pipeline
from runtime.sampling.sampler import TOKENS_AT_ONCE, Progress, initial_noise, sample
from runtime.sampling.settings import UpscaleSettings
from schemas.errors import ResourceError

logger = logging.getLogger(__name__)

SCALE = 4
"""Enlargement per side; the network is trained for this one."""

MAX_STRETCH = 4
"""Limit on raising short sides (ours): the long side is not scaled up past this many times
``min_side_px``. A strip of 1 x 1000 px would otherwise become 512 x 512,000; it is padded."""

VAE_TILE_PX = 1024
"""Images larger than this are encoded and decoded in tiles: SD 3.5's VAE was trained at 1024."""

VAE_TILE_FLOOR_PX = 256
"""Smallest VAE tile tried when memory runs out; seams would show under it."""

TILE_FLOOR = 16
"""Smallest network tile tried when memory runs out, in latent pixels (128 px of the image)."""

Result = TypeVar("Result")


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
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: Progress | None = None,
) -> FileReport:
    """Upscale ``source`` into ``output``, which appears whole or not at all.

    Raises:
        ImageError: the input is no image, damaged or too large, or its result does not fit the
            output's format.
        ResourceError: memory ran out with the smallest tiles, or the output cannot be written.
    """
    header = read_header(source, max_pixels=max_pixels)
    check_output_size(output, SCALE * header.width, SCALE * header.height)
    image = read_image(source, max_pixels=max_pixels)
    result = upscale(pipeline, image.rgb, settings, progress=progress)
    alpha = None if image.alpha is None else resize(image.alpha, result.shape[-2:])
    written = write_image(output, result, image, alpha=alpha)
    return FileReport(result.shape[-1], result.shape[-2], (*image.notes, *written))


@torch.inference_mode()
def upscale(
    pipeline: Pipeline,
    rgb: Tensor,
    settings: UpscaleSettings,
    *,
    progress: Progress | None = None,
) -> Tensor:
    """Return ``rgb`` [1, 3, H, W], sRGB-coded, 0 ... 1, as float32 [1, 3, 4 H, 4 W] on the CPU.

    Args:
        pipeline: the model.
        rgb: any height and width, from 1 px.
        settings: checked by `UpscaleSettings.check`.
        progress: called after every sampling step; starts over when memory runs out.

    Raises:
        ResourceError: memory ran out with the smallest tiles.
    """
    prepared = prepare(pipeline, rgb, settings)
    latent = sample_latent(pipeline, prepared.control, settings, progress=progress)
    return finish(pipeline, prepared, latent, settings)


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image on its way to the network.

    Attributes:
        target: height and width of the result.
        enlarged: what colours are corrected against, float32 [1, 3, h, w] on the CPU.
        control: the control latent, float32 [1, C, h / f, w / f] of the padded ``enlarged``, with
            f the autoencoder's factor.
    """

    target: tuple[int, int]
    enlarged: Tensor
    control: Tensor


@torch.inference_mode()
def prepare(pipeline: Pipeline, rgb: Tensor, settings: UpscaleSettings) -> Prepared:
    """Enlarge, pad and encode ``rgb`` [1, 3, H, W].

    Raises:
        ResourceError: memory ran out with the smallest tiles.
    """
    height, width = rgb.shape[-2:]
    target = (SCALE * height, SCALE * width)
    # From the input in one step, not from the enlarged image: a second resampling would blur.
    enlarged = resize(rgb.float(), working_size(*target, settings.min_side_px))
    unit = pipeline.vae_factor * pipeline.patch_size
    padded = pad_to_multiple(enlarged, unit, at_least=settings.min_side_px)
    control = with_smaller_tiles(
        lambda tile: encode(pipeline, padded, tile),
        min(VAE_TILE_PX, max(padded.shape[-2:])),
        VAE_TILE_FLOOR_PX,
        vae_tile_unit(pipeline),
        "VAE encoding",
        pipeline.release_graphs,
    )
    return Prepared(target, enlarged, control)


@torch.inference_mode()
def sample_latent(
    pipeline: Pipeline,
    control: Tensor,
    settings: UpscaleSettings,
    *,
    progress: Progress | None = None,
) -> Tensor:
    """Sample the latent [1, C, h, w], float32, that belongs to a control latent of that shape.

    Raises:
        ResourceError: memory ran out with the smallest tiles.
    """
    # A tile that no side needs would have to be halved in vain before anything shrinks.
    largest = min(settings.tile, max(control.shape[-2:]))
    return with_smaller_tiles(
        lambda tile: sample(
            pipeline.velocity,
            control.to(pipeline.dtype),
            pipeline.prompts,
            settings if tile == settings.tile else settings.with_tile(tile, pipeline.patch_size),
            noise=initial_noise(tuple(control.shape), settings.seed),
            patch_size=pipeline.patch_size,
            bits_at=pipeline.bits_at,
            # Where memory ran out, smaller tiles are to take less of it, not to come in batches.
            tokens_at_once=TOKENS_AT_ONCE if tile == largest else 0,
            progress=progress,
        ),
        largest,
        TILE_FLOOR,
        pipeline.patch_size,
        "sampling",
        pipeline.release_graphs,
    )


@torch.inference_mode()
def finish(
    pipeline: Pipeline, prepared: Prepared, latent: Tensor, settings: UpscaleSettings
) -> Tensor:
    """Decode ``latent``, correct its colours and cut it to size: float32 [1, 3, 4 H, 4 W].

    Raises:
        ResourceError: memory ran out with the smallest tiles.
    """
    padded_px = pipeline.vae_factor * max(latent.shape[-2:])
    decoded = with_smaller_tiles(
        lambda tile: decode(pipeline, latent, tile),
        min(VAE_TILE_PX, padded_px),
        VAE_TILE_FLOOR_PX,
        vae_tile_unit(pipeline),
        "VAE decoding",
        pipeline.release_graphs,
    )
    enlarged = prepared.enlarged
    decoded = decoded[..., : enlarged.shape[-2], : enlarged.shape[-1]]
    corrected = correct_color(decoded, enlarged, settings.color_fix)
    return resize(corrected, prepared.target)


def vae_tile_unit(pipeline: Pipeline) -> int:
    """What VAE tiles are a multiple of, in px.

    diffusers overlaps them by a quarter, which has to be a whole number of latent pixels.
    """
    return 4 * pipeline.vae_factor


def working_size(height: int, width: int, min_side_px: int) -> tuple[int, int]:
    """Return height and width at which the network sees an image meant to be height x width px.

    The shorter side is raised to ``min_side_px``, both sides in proportion, as far as
    `MAX_STRETCH` lets the longer one grow.
    """
    scale = max(1.0, min_side_px / min(height, width))
    scale = min(scale, max(1.0, MAX_STRETCH * min_side_px / max(height, width)))
    return round(height * scale), round(width * scale)


def resize(image: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Resize [1, C, H, W] to ``size`` = (height, width), bicubic, clamped to 0 ... 1.

    ``antialias`` chooses the kernel of image editors (a = -0.5) and widens it when shrinking.
    """
    if image.shape[-2:] == tuple(size):
        return image.clamp(0, 1)
    return F.interpolate(
        image, size=tuple(size), mode="bicubic", align_corners=False, antialias=True
    ).clamp(0, 1)


def pad_to_multiple(image: Tensor, unit: int, *, at_least: int) -> Tensor:
    """Extend [1, C, H, W] to the right and below, to multiples of ``unit`` no less than a size.

    The new pixels mirror the image; where it is too small to be mirrored, its edge is repeated.
    """
    height, width = image.shape[-2:]
    below = math.ceil(max(height, at_least) / unit) * unit - height
    right = math.ceil(max(width, at_least) / unit) * unit - width
    for side, padding in ((width, (0, right, 0, 0)), (height, (0, 0, 0, below))):
        if any(padding):
            mirrored = max(padding) < side
            image = F.pad(image, padding, mode="reflect" if mirrored else "replicate")
    return image


def encode(pipeline: Pipeline, image: Tensor, tile_px: int) -> Tensor:
    """Encode [1, 3, H, W], 0 ... 1, to the latent that the network works on, float32.

    The mode of the VAE's distribution is taken, not a sample: the same image gives the same latent.
    """
    vae = pipeline.vae
    _tile_vae(pipeline, tile_px)
    with _narrow_products(pipeline):
        moments = vae.encode((2 * image - 1).to(pipeline.device, vae.dtype))
    latent: Tensor = moments.latent_dist.mode().float()
    control: Tensor = (latent - (vae.config.shift_factor or 0)) * vae.config.scaling_factor
    return control


def decode(pipeline: Pipeline, latent: Tensor, tile_px: int) -> Tensor:
    """Decode a latent to [1, 3, H, W], about 0 ... 1, float32 on the CPU."""
    vae = pipeline.vae
    _tile_vae(pipeline, tile_px)
    scaled = latent / vae.config.scaling_factor + (vae.config.shift_factor or 0)
    with _narrow_products(pipeline):
        decoded: Tensor = vae.decode(scaled.to(vae.dtype)).sample
    return decoded.float().cpu() / 2 + 0.5


def _narrow_products(pipeline: Pipeline) -> torch.autocast:
    """The VAE's convolutions and attention in bfloat16, where the network computes in it.

    Its norms and sums stay in float32. float16 would overflow.
    """
    return torch.autocast(
        pipeline.device.type, torch.bfloat16, enabled=pipeline.dtype == torch.bfloat16
    )


def _tile_vae(pipeline: Pipeline, tile_px: int) -> None:
    """Let the VAE work in tiles of ``tile_px``, with diffusers' overlap of a quarter."""
    pipeline.vae.enable_tiling()
    pipeline.vae.tile_sample_min_size = tile_px
    pipeline.vae.tile_latent_min_size = tile_px // pipeline.vae_factor


def with_smaller_tiles(
    run: Callable[[int], Result],
    tile: int,
    floor: int,
    unit: int,
    what: str,
    make_room: Callable[[], bool] = lambda: False,
) -> Result:
    """Return ``run(tile)``, halving the tile whenever memory runs out.

    Args:
        run: the work, given the side of a tile.
        tile: side to start from.
        floor: side that is not gone below.
        unit: sides stay multiples of this.
        what: names the work in the log.
        make_room: gives back memory that the work can do without and says whether there was any;
            where there was, the same tile is tried once more.

    Raises:
        ResourceError: memory ran out with tiles of ``floor``.
    """
    while True:
        try:
            return run(tile)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            smaller = tile
            if not make_room():
                smaller = max(floor, tile // 2)
                smaller -= smaller % unit
                if not 0 < smaller < tile:
                    raise ResourceError(
                        f"{what}: out of memory, even with tiles of {tile}",
                        hint="close other programs, use a smaller image, or --device cpu",
                    ) from error
        # Only here is the failed attempt's traceback gone, and with it the tensors it held.
        next_try = f"trying {smaller}" if smaller < tile else "trying without CUDA graphs"
        logger.warning("%s: out of memory with tiles of %d; %s", what, tile, next_try)
        tile = smaller
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, on the CPU or on a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch's CPU allocator and cuBLAS have no exception of their own.
    said = str(error)
    return isinstance(error, RuntimeError) and any(
        phrase in said
        for phrase in ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
    )
