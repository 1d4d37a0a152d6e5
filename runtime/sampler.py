"""The sampling loop: from Gaussian noise to a latent, along the velocity the network predicts.

Flow matching follows dx/dsigma = v(x, sigma) from sigma = 1 (noise) to 0 (image) in Euler steps.
At every step the velocity is extrapolated from the negative prompt's to the positive prompt's
(classifier-free guidance), and assembled from overlapping tiles where the latent is large.
"""

from collections.abc import Callable

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from runtime.pipeline import BitsAt, Prompts
from runtime.projection import ActivationBits
from runtime.settings import UpscaleSettings
from runtime.tiling import Tile, apply_tiled, tiles_of

Network = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, ActivationBits | None], Tensor]
"""`DiT4SR.forward`: noisy latent, control latent, prompt, pooled prompt, timestep, bits."""

Progress = Callable[[int, int], None]
"""Called after every step with the steps done and the steps in all."""


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
    progress: Progress | None = None,
) -> Tensor:
    """Sample a latent.

    Args:
        network: predicts the velocity; called with ``control``'s device and dtype.
        control: low-resolution latent [1, C, h, w].
        prompts: on the device and in the dtype of ``control``.
        settings: steps, guidance, shift, tile and overlap are read.
        noise: where to start [1, C, h, w], float32 or wider. The velocity is brought to its dtype
            before a step is taken: the scheduler would round the latent to a narrower one.
        patch_size: side of the network's patches, in latent pixels; tiles keep to their grid.
        bits_at: activation bits at a timestep.
        progress: called after every step.

    Returns:
        The latent [1, C, h, w] in the dtype of ``noise``, on the device of ``control``.

    Raises:
        ValueError: the latent or its tiles do not divide into patches.
    """
    latent = noise.to(control.device)
    height, width = latent.shape[-2:]
    tiles = tiles_of(height, width, settings.tile, settings.overlap, patch_size)
    velocity = GuidedVelocity(network, control, prompts, settings.guidance)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=settings.shift)
    scheduler.set_timesteps(settings.steps)

    for step, timestep in enumerate(scheduler.timesteps, start=1):
        of_tile = velocity.on(latent, timestep, bits_at(timestep.item()))
        whole = apply_tiled(of_tile, like=latent, tiles=tiles)
        latent = scheduler.step(whole, timestep, latent, return_dict=False)[0]
        if progress is not None:
            progress(step, settings.steps)
    return latent


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

    def on(
        self, latent: Tensor, timestep: Tensor, bits: ActivationBits | None
    ) -> Callable[[Tile], Tensor]:
        """Return the velocity of ``latent`` [1, C, h, w] at ``timestep`` [], as a function of tile.

        The velocity is in the dtype of ``latent``.
        """
        branches = len(self.embeds)
        timesteps = timestep.to(latent.device).expand(branches)

        def of_tile(tile: Tile) -> Tensor:
            noisy = tile.of(latent).to(self.control.dtype)
            predicted = self.network(
                noisy.expand(branches, -1, -1, -1),
                tile.of(self.control).expand(branches, -1, -1, -1),
                self.embeds,
                self.pooled,
                timesteps,
                bits,
            ).to(latent.dtype)
            if branches == 1:
                return predicted
            negative, positive = predicted.chunk(2)
            return negative + self.guidance * (positive - negative)

        return of_tile
