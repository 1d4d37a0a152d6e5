"""Derivatives of the final latent through the whole sampling loop.

The loop takes Euler steps ``z_{k+1} = z_k + (sigma_{k+1} - sigma_k) v(z_k, t_k)``. A cotangent
``u`` of the final latent goes back through them, last step first:

    u_k = u_{k+1} + (sigma_{k+1} - sigma_k) (dv/dz_k)ᵀ u_{k+1}

Each step's network is run again for its derivative, so memory holds one forward pass, not the loop;
with its blocks checkpointed it holds one block. A pass for the trajectory, then per step a pass, a
second one inside the checkpoints, and a backward pass per cotangent.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from planner.probe.layer_gradients import LayerGradients
from runtime.pipeline import Network, Prompts
from runtime.sampling.sampler import GuidedVelocity, initial_latent
from runtime.sampling.schedule import euler_schedule
from runtime.sampling.settings import UpscaleSettings
from runtime.sampling.tiling import Tile


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A sampled trajectory, without its derivatives.

    Attributes:
        latents: z_0 ... z_T, each [1, C, h, w] float32.
        timesteps: t_0 ... t_{T-1}.
        changes: sigma_{k+1} - sigma_k of every step.
    """

    latents: tuple[Tensor, ...]
    timesteps: Tensor
    changes: tuple[float, ...]


class SampledImage:
    """One image's sampling loop, to be run forwards and differentiated backwards.

    Args:
        network: predicts the velocity.
        control: low-resolution latent [1, C, h, w], of one tile's size at most.
        prompts: on the device and in the dtype of ``control``.
        settings: steps, guidance, shift and start_sigma are read.
        noise: float32 [1, C, h, w].
    """

    def __init__(
        self,
        network: Network,
        control: Tensor,
        prompts: Prompts,
        settings: UpscaleSettings,
        noise: Tensor,
    ) -> None:
        self._velocity = GuidedVelocity(network, control, prompts, settings.guidance)
        # Layers that read a prompt alone, as modulations do, would get no gradient otherwise.
        velocity = self._velocity
        self._prompts = [velocity.embeds.requires_grad_(), velocity.pooled.requires_grad_()]
        height, width = noise.shape[-2:]
        self._tile = Tile(0, 0, height, width)
        scheduler = euler_schedule(settings.steps, settings.shift, settings.start_sigma)
        self._timesteps = scheduler.timesteps
        sigmas = scheduler.sigmas.tolist()
        self._changes = tuple(after - before for before, after in itertools.pairwise(sigmas))
        self._start = initial_latent(noise, control, scheduler.sigmas[0])

    @torch.no_grad()
    def run(self, step_done: Callable[[], None] = lambda: None) -> Trajectory:
        """Sample, and keep every latent on the way."""
        latents = [self._start]
        for timestep, change in zip(self._timesteps, self._changes, strict=True):
            latents.append(latents[-1] + change * self._at(latents[-1], timestep))
            step_done()
        return Trajectory(tuple(latents), self._timesteps, self._changes)

    def differentiate(
        self,
        trajectory: Trajectory,
        cotangents: Sequence[Tensor],
        watch: LayerGradients,
        step_done: Callable[[], None] = lambda: None,
    ) -> list[Tensor]:
        """Carry cotangents of the final latent back to the first.

        Args:
            trajectory: what `run` gave.
            cotangents: each [1, C, h, w].
            watch: told which step and cotangent a gradient belongs to.
            step_done: called after every step.

        Returns:
            The cotangents of the initial latent.
        """
        found = [cotangent.to(self._start) for cotangent in cotangents]
        for step in reversed(range(len(self._changes))):
            change = trajectory.changes[step]
            latent = trajectory.latents[step].detach().requires_grad_()
            with torch.enable_grad():
                velocity = self._at(latent, trajectory.timesteps[step])
            last = len(found) - 1
            for index, cotangent in enumerate(found):
                watch.at(step, index)
                pulled, *_ = torch.autograd.grad(
                    velocity,
                    [latent, *self._prompts],
                    change * cotangent,
                    retain_graph=index != last,
                    allow_unused=True,
                )
                found[index] = cotangent + pulled
            step_done()
        return found

    def _at(self, latent: Tensor, timestep: Tensor) -> Tensor:
        (velocity,) = self._velocity.on(latent, timestep, None, [self._tile], 1)
        return velocity


@contextlib.contextmanager
def checkpointed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Have the activations of ``blocks`` recomputed, not kept, while the block runs."""
    originals = [block.forward for block in blocks]
    for block, forward in zip(blocks, originals, strict=True):
        block.forward = partial(checkpoint, forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
