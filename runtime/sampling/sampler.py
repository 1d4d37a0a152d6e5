"""The sampling loop: from noise to a latent, along the velocity the network predicts.

Flow matching follows dx/dsigma = v(x, sigma) from sigma = 1 (noise) to 0 (image) in Euler steps.
At every step the velocity is extrapolated from the negative prompt's to the positive prompt's
(classifier-free guidance), and assembled from overlapping tiles where the latent is large. With a
fidelity above 0 the first steps are left out, and what they would have made is the control latent
under the noise of that point (SDEdit, arXiv 2108.01073): less is invented, and less restored.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from runtime.network.projection import ActivationBits
from runtime.pipeline import Network, Prompts
from runtime.sampling.bit_schedule import BitsAt
from runtime.sampling.schedule import euler_schedule
from runtime.sampling.settings import UpscaleSettings
from runtime.sampling.tiling import Tile, blend_tiles, tiles_of

StepCallback = Callable[[int, int], None]
"""Called after every step with the steps done and the steps in all."""

LatentCallback = Callable[[int, float, Tensor], Tensor]
"""Called after every step with its number from 0, its timestep and the latent; gives the latent to
go on with."""

TOKENS_AT_ONCE = 4096
"""Small tiles share a pass up to this many tokens: short ones spend their time between operations.
A full tile of 64 x 64, 2381 tokens in each branch, is a pass of its own."""


FAITHFUL_SIGMA = 0.8
"""Share of noise that the highest fidelity begins with: where results of the bundled model are
closest to the truth (docs/images.md). With less, detail is missing and nothing is closer."""


def initial_noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Return float32 Gaussian noise, drawn on the CPU so that every device starts from the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


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
    tokens_at_once: int = TOKENS_AT_ONCE,
    progress: StepCallback | None = None,
    on_latent: LatentCallback | None = None,
) -> Tensor:
    """Sample a latent.

    Args:
        network: predicts the velocity; called with ``control``'s device and dtype.
        control: low-resolution latent [1, C, h, w].
        prompts: on the device and in the dtype of ``control``.
        settings: steps, guidance, shift, start_sigma, tile, overlap and fidelity are read.
        noise: where to start, or what is added to the control latent there [1, C, h, w], float32
            or wider. The velocity is brought to its dtype before a step is taken.
        patch_size: side of the network's patches, in latent pixels; tiles keep to their grid.
        bits_at: activation bits at a timestep.
        tokens_at_once: tiles are batched up to this many tokens; a larger one goes alone.
        progress: called after every step.
        on_latent: likewise, with the latent, which it may replace.

    Returns:
        The latent [1, C, h, w] in the dtype of ``noise``, on the device of ``control``.

    Raises:
        ValueError: the latent or its tiles do not divide into patches.
    """
    height, width = control.shape[-2:]
    tiles = tiles_of(height, width, settings.tile, settings.overlap, patch_size)
    velocity = GuidedVelocity(network, control, prompts, settings.guidance)
    at_once = max(1, tokens_at_once // velocity.tokens_of(tiles[0], patch_size))
    scheduler = euler_schedule(settings.steps, settings.shift, settings.start_sigma)
    first = first_step(scheduler.sigmas[:-1], settings.fidelity)
    latent = initial_latent(noise, control, scheduler.sigmas[first])
    changes = scheduler.sigmas.diff().to(latent)

    for step, timestep in enumerate(scheduler.timesteps[first:], start=1):
        of_tiles = velocity.on(latent, timestep, bits_at(timestep.item()), tiles, at_once)
        whole = blend_tiles(of_tiles, like=latent, tiles=tiles)
        change = changes[first + step - 1]
        # What was blended is ours, and a large image's latent fills memory: no further one is made.
        whole = whole.mul_(change) if len(tiles) > 1 else whole * change
        latent = whole.add_(latent)
        if on_latent is not None:
            latent = on_latent(step - 1, timestep.item(), latent)
        if progress is not None:
            progress(step, settings.steps - first)
    return latent


def initial_latent(noise: Tensor, control: Tensor, sigma: Tensor) -> Tensor:
    """Where sampling begins: the control latent under noise, or noise alone.

    Args:
        noise: [1, C, h, w].
        control: likewise; the result is on its device, in the dtype of ``noise``.
        sigma: share of noise, in 0 ... 1.
    """
    latent = noise.to(control.device)
    if sigma == 1:
        return latent
    sigma = sigma.to(latent)
    return (sigma * latent).add_((1 - sigma) * control.to(latent))


def first_step(sigmas: Tensor, fidelity: float) -> int:
    """The step whose share of noise is nearest to what a fidelity asks for.

    Whole steps are left out, so that a pack meets no timestep that it was not made for.

    Args:
        sigmas: of the steps [steps], descending from 1.
        fidelity: 0 begins with noise alone, 1 at `FAITHFUL_SIGMA`; linear in the noise between.
    """
    start = 1 - fidelity * (1 - FAITHFUL_SIGMA)
    return int((sigmas - start).abs().argmin())


class GuidedVelocity:
    """The guided velocity ``v_neg + g (v_pos - v_neg)`` of one image.

    Both halves go through the network as one batch [negative, positive]. With g = 1 the formula is
    ``v_pos``, so the negative half is left out: the same velocity for half the work.
    """

    def __init__(
        self, network: Network, control: Tensor, prompts: Prompts, guidance: float
    ) -> None:
        self.network = network
        self.control = control
        self.guidance = guidance
        embeds, pooled = [prompts.positive_embeds], [prompts.positive_pooled]
        if guidance != 1:
            embeds.insert(0, prompts.negative_embeds)
            pooled.insert(0, prompts.negative_pooled)
        self.embeds = torch.stack(embeds)  # [1 or 2, m, J]
        self.pooled = torch.stack(pooled)  # [1 or 2, P]

    def tokens_of(self, tile: Tile, patch_size: int) -> int:
        """Tokens that one tile brings into a pass: image, control and text of every branch."""
        image = tile.height * tile.width // patch_size**2
        branches, text, _ = self.embeds.shape
        return int(branches * (2 * image + text))

    def on(
        self,
        latent: Tensor,
        timestep: Tensor,
        bits: ActivationBits | None,
        tiles: Sequence[Tile],
        at_once: int,
    ) -> Iterator[Tensor]:
        """Yield the velocity of every tile of ``latent`` [1, C, h, w] at ``timestep`` [].

        Each is [1, C, tile height, tile width] in the dtype of ``latent``; ``at_once`` tiles go
        through the network as one batch.
        """
        for start in range(0, len(tiles), at_once):
            part = tiles[start : start + at_once]
            noisy = torch.cat([tile.of(latent) for tile in part]).to(self.control.dtype)
            control = torch.cat([tile.of(self.control) for tile in part])
            n, branches = len(part), len(self.embeds)
            predicted = self.network(
                noisy.repeat(branches, 1, 1, 1),
                control.repeat(branches, 1, 1, 1),
                self.embeds.repeat_interleave(n, 0),
                self.pooled.repeat_interleave(n, 0),
                timestep.to(latent.device).expand(branches * n),
                bits,
            ).to(latent.dtype)
            yield from self._guided(predicted).split(1)

    def _guided(self, predicted: Tensor) -> Tensor:
        """``predicted`` [branches * n, C, h, w] -> [n, C, h, w]."""
        if len(self.embeds) == 1:
            return predicted
        negative, positive = predicted.chunk(2)
        return negative + self.guidance * (positive - negative)
