"""VOSR's sampling: one step from noise to a latent, or a few.

A step from time t to r follows the network's mean velocity between them: ``z - (t - r) v(z, t, r)``
is the latent at r. Times fall evenly from 1 to 0, so one step is ``noise - v(noise, 1, 0)``.
Guidance was distilled into the network, which is asked once a step.

Where a latent takes several tiles, every tile is given those features of the whole picture that lie
over it, as the published code does.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from runtime.network.projection import ActivationBits
from runtime.pipeline import Network, Prompts
from runtime.sampling.bit_schedule import BitsAt
from runtime.sampling.sampler import LatentCallback, StepCallback, first_step, initial_latent
from runtime.sampling.settings import UpscaleSettings
from runtime.sampling.tiling import Tile, blend_tiles, tiles_of
from runtime.vosr.network import TIMESTEPS
from schemas.errors import UsageError


@torch.inference_mode()
def sample(
    network: Network,
    control: Tensor,
    prompts: Prompts,
    settings: UpscaleSettings,
    *,
    noise: Tensor,
    patch_size: int,
    bits_at: BitsAt = lambda _timestep: None,
    tokens_at_once: int = 0,
    progress: StepCallback | None = None,
    on_latent: LatentCallback | None = None,
) -> Tensor:
    """Sample a latent; arguments and result are those of `runtime.sampling.sampler.sample`.

    Args:
        network: predicts the velocity; called with ``control``'s device and dtype.
        control: low-resolution latent [1, C, h, w].
        prompts: the picture's features, on the positive side; the other is not read.
        settings: steps, tile, overlap and fidelity are read.
        noise: where to start [1, C, h, w], float32 or wider.
        patch_size: side of the network's patches, in latent pixels.
        bits_at: activation bits at a timestep.
        tokens_at_once: not read: tiles differ in features, so each is a pass of its own.
        progress: called after every step.
        on_latent: likewise, with the latent, which it may replace.

    Raises:
        UsageError: another guidance than 1 is asked for.
        ValueError: the latent or its tiles do not divide into patches.
    """
    if settings.guidance != 1:
        raise UsageError(
            f"--guidance {settings.guidance:g}: this network has its guidance built in",
            hint="leave --guidance out",
        )
    height, width = control.shape[-2:]
    tiles = tiles_of(height, width, settings.tile, settings.overlap, patch_size)
    times = torch.linspace(1, 0, settings.steps + 1, dtype=torch.float64)
    first = first_step(times[:-1], settings.fidelity)
    latent = initial_latent(noise, control, times[first])

    for step in range(first, settings.steps):
        timestep, end = (float(TIMESTEPS * time) for time in times[step : step + 2])
        bits = bits_at(timestep)

        velocities = _velocities(network, latent, control, prompts, tiles, timestep, end, bits)
        whole = blend_tiles(velocities, like=latent, tiles=tiles)
        latent = latent - (timestep - end) / TIMESTEPS * whole
        if on_latent is not None:
            latent = on_latent(step - first, timestep, latent)
        if progress is not None:
            progress(step - first + 1, settings.steps - first)
    return latent


def _velocities(
    network: Network,
    latent: Tensor,
    control: Tensor,
    prompts: Prompts,
    tiles: Sequence[Tile],
    timestep: float,
    end: float,
    bits: ActivationBits | None,
) -> Iterator[Tensor]:
    """Yield the velocity of every tile [1, C, tile height, tile width], as wide as ``latent``."""
    # float32 whatever the network computes in: times are embedded before they are rounded.
    begins = torch.full((1,), timestep, device=control.device)
    ends = torch.full((1, 1), end, device=control.device)
    for tile in tiles:
        features = features_of(tile, prompts.positive_embeds, *control.shape[-2:])
        noisy = tile.of(latent).to(control.dtype)
        velocity = network(noisy, tile.of(control), features[None], ends, begins, bits)
        yield velocity.to(latent.dtype)


def features_of(tile: Tile, features: Tensor, height: int, width: int) -> Tensor:
    """The features [n, F] of a picture that lie over a tile of its latent.

    Args:
        tile: of the latent.
        features: of the whole picture, row by row of a square grid [m, F].
        height: of the latent.
        width: likewise.
    """
    side = math.isqrt(len(features))
    top, bottom = _span(tile.top, tile.height, height, side)
    left, right = _span(tile.left, tile.width, width, side)
    return features.unflatten(0, (side, side))[top:bottom, left:right].flatten(0, 1)


def _span(start: int, length: int, whole: int, side: int) -> tuple[int, int]:
    """Where a part of ``whole`` lies on ``side`` places: cut down, and never empty."""
    first = start * side // whole
    return first, max((start + length) * side // whole, first + 1)
