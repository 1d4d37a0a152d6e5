"""Images to latents and back, through the VAE, in tiles where they are large."""

import copy

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from runtime.free_memory import free_bytes
from runtime.memory import tile_for_memory, with_smaller_tiles
from runtime.pipeline import Pipeline
from schemas.errors import PackError

VAE_TILE_PX = 1024
"""Images larger than this are encoded and decoded in tiles: SD 3.5's VAE was trained at 1024."""

VAE_TILE_FLOOR_PX = 256
"""Smallest VAE tile tried when memory runs out; seams would show under it."""

ENCODE_MAPS, DECODE_MAPS = 5.5, 8.5
"""What a tile takes, in float32 maps of its area with the first block's channels. Measured at the
peak: 4.5 to 5.1 and 7.7 to 8.0, tiles of 512 and 1024 px, SD 3.5's autoencoder and the bundled one;
6.6 to decode where weights lie in the order `channels_last`, as they do on CPUs.
"""


def encode(pipeline: Pipeline, image: Tensor) -> Tensor:
    """Encode [1, 3, H, W], 0 ... 1, to the latent that the network works on, float32.

    ``(z - shift_factor) * scaling_factor``, with z the mode of the VAE's distribution and not a
    sample of it: the same image gives the same latent.

    Raises:
        ResourceError: memory ran out with the smallest tiles.
    """
    return with_smaller_tiles(
        lambda tile: encode_in_tiles(pipeline, image, tile),
        _first_tile(pipeline, max(image.shape[-2:]), ENCODE_MAPS, "VAE encoding"),
        VAE_TILE_FLOOR_PX,
        _tile_unit(pipeline),
        "VAE encoding",
        pipeline.release_graphs,
    )


def decode(pipeline: Pipeline, latent: Tensor) -> Tensor:
    """Decode a latent to [1, 3, H, W], about 0 ... 1, float32 on the CPU.

    Raises:
        PackError: the picture holds values that are not finite.
        ResourceError: memory ran out with the smallest tiles.
    """
    picture = with_smaller_tiles(
        lambda tile: decode_in_tiles(pipeline, latent, tile),
        _first_tile(
            pipeline, pipeline.vae_factor * max(latent.shape[-2:]), DECODE_MAPS, "VAE decoding"
        ),
        VAE_TILE_FLOOR_PX,
        _tile_unit(pipeline),
        "VAE decoding",
        pipeline.release_graphs,
    )
    # Weights may each be sound, and overflow together.
    if not bool(torch.isfinite(picture).all()):
        raise PackError(
            f"the model's picture holds values that are not finite (computed in {pipeline.dtype})",
            hint="try --dtype float32; if that is no better, the model is damaged",
        )
    return picture


def encode_in_tiles(pipeline: Pipeline, image: Tensor, tile_px: int) -> Tensor:
    """`encode` with tiles of one size; raises what running out of memory raises."""
    vae = _tiled_vae(pipeline, tile_px)
    with _narrow_products(pipeline):
        moments = vae.encode((2 * image - 1).to(pipeline.device, vae.dtype))
    latent: Tensor = moments.latent_dist.mode().float()
    control: Tensor = (latent - (vae.config.shift_factor or 0)) * vae.config.scaling_factor
    return control


def decode_in_tiles(pipeline: Pipeline, latent: Tensor, tile_px: int) -> Tensor:
    """`decode` with tiles of one size; raises what running out of memory raises."""
    vae = _tiled_vae(pipeline, tile_px)
    scaled = latent / vae.config.scaling_factor + (vae.config.shift_factor or 0)
    with _narrow_products(pipeline):
        decoded: Tensor = vae.decode(scaled.to(vae.dtype)).sample
    return decoded.float().cpu() / 2 + 0.5


def _first_tile(pipeline: Pipeline, side_px: int, maps: float, what: str) -> int:
    """Side of the tiles to begin with, in px, by the memory that is free now."""
    channels: int = pipeline.vae.config.block_out_channels[0]
    return tile_for_memory(
        min(VAE_TILE_PX, side_px),
        VAE_TILE_FLOOR_PX,
        _tile_unit(pipeline),
        maps * channels * torch.float32.itemsize,
        free_bytes(pipeline.device),
        what,
    )


def _tile_unit(pipeline: Pipeline) -> int:
    """What VAE tiles are a multiple of, in px.

    diffusers overlaps them by a quarter, which has to be a whole number of latent pixels.
    """
    return 4 * pipeline.vae_factor


def _narrow_products(pipeline: Pipeline) -> torch.autocast:
    """The VAE's convolutions and attention in bfloat16, where the network computes in it.

    Its norms and sums stay in float32. float16 would overflow.
    """
    return torch.autocast(
        pipeline.device.type, torch.bfloat16, enabled=pipeline.dtype == torch.bfloat16
    )


def _tiled_vae(pipeline: Pipeline, tile_px: int) -> AutoencoderKL:
    """The VAE, working in tiles of ``tile_px`` with diffusers' overlap of a quarter.

    A shallow copy: the layers are the same, but diffusers keeps the tiles' size as a setting of the
    module, and another thread's image may need other tiles.
    """
    vae = copy.copy(pipeline.vae)
    vae.enable_tiling()
    vae.tile_sample_min_size = tile_px
    vae.tile_latent_min_size = tile_px // pipeline.vae_factor
    return vae
