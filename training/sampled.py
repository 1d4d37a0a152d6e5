"""Networks as they were trained, sampled as the runtime samples them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file
from torch import Tensor

from runtime.load import load_full_precision
from runtime.network.family import LatentNetwork
from runtime.prompts.named import NAMED_PROMPTS
from runtime.sampling.sampler import initial_latent
from runtime.sampling.schedule import euler_schedule
from runtime.sampling.settings import UpscaleSettings
from training.device import multiplies_bfloat16
from training.prompts import NAMES, PromptTable


class GuidedModelError(ValueError):
    """A model is sampled with guidance, which samples for training are not."""


@dataclass(frozen=True)
class SamplingStep:
    """One evaluation of a network.

    Attributes:
        sigma: share of noise in ``latent``.
        timestep: as the network is told it.
        latent: what it was given [n, C, h, w].
        velocity: what it found, float32, same shape.
        change: of ``sigma`` in this step, below 0.
    """

    sigma: float
    timestep: float
    latent: Tensor
    velocity: Tensor
    change: float

    @property
    def after(self) -> Tensor:
        """The latent after the step."""
        return self.latent + self.change * self.velocity


@dataclass(frozen=True)
class TrainedNetwork:
    """A network as its folder has it.

    Attributes:
        network: frozen, in bfloat16 where the device multiplies it.
        prompts: what its samples may ask for, in the same.
        settings: how it is sampled.
    """

    network: LatentNetwork
    prompts: PromptTable
    settings: UpscaleSettings

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> "TrainedNetwork":
        """Read an exported model.

        Raises:
            GuidedModelError: it is sampled with guidance, which the bundled networks are not.
        """
        dtype = torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
        pipeline = load_full_precision(folder, device=device, dtype=dtype)
        if pipeline.sampling.guidance != 1:
            raise GuidedModelError(f"{folder} is sampled with guidance; samples are made without")
        tensors = load_file(folder / NAMED_PROMPTS)
        embeds, pooled = (
            torch.stack([tensors[f"{name}.{part}"] for name in NAMES]).to(device, dtype)
            for part in ("embeds", "pooled")
        )
        return cls(pipeline.network, PromptTable(embeds, pooled), pipeline.sampling)

    def sample(self, control: Tensor, prompt: Tensor) -> Tensor:
        """Latents [n, C, h, w] from control latents, float32, by torch's random numbers.

        Args:
            control: scaled latents of degraded pictures [n, C, h, w].
            prompt: indices into the prompts [n].
        """
        *_, last = self.steps(control, prompt)
        return last.after

    @property
    def schedule(self) -> FlowMatchEulerDiscreteScheduler:
        """Its shares of noise and timesteps."""
        return euler_schedule(self.settings.steps, self.settings.shift, self.settings.start_sigma)

    def steps(self, control: Tensor, prompt: Tensor) -> Iterator[SamplingStep]:
        """The same, step by step."""
        schedule = self.schedule
        noise = torch.randn_like(control)
        latent = initial_latent(noise, control, schedule.sigmas[0])
        sigmas, timesteps = schedule.sigmas.tolist(), schedule.timesteps.tolist()
        for sigma, after, timestep in zip(sigmas, sigmas[1:], timesteps, strict=False):
            velocity = self._velocity(latent, control, prompt, timestep)
            step = SamplingStep(sigma, timestep, latent, velocity, after - sigma)
            yield step
            latent = step.after

    @torch.no_grad()
    def _velocity(self, latent: Tensor, control: Tensor, prompt: Tensor, timestep: float) -> Tensor:
        embeds, pooled = self.prompts.embeds[prompt], self.prompts.pooled[prompt]
        times = torch.full((len(latent),), timestep, device=latent.device)
        found = self.network(
            latent.to(embeds.dtype), control.to(embeds.dtype), embeds, pooled, times, None
        )
        return found.float()
