"""What a network begins its closing step with, by its own sampling, and some step to be kept.

The closing step is the last one that does something: schedules of diffusers end with one more, from
hardly any noise.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from training.crops import to_batch
from training.pairs import encode
from training.sampled import TrainedNetwork
from training.windows import asks_for_detail

HARDLY_ANY = 0.02
"""Share of noise from which a step changes next to nothing."""


@dataclass(frozen=True)
class ClosingStates:
    """Samples; see `training.shards`.

    Attributes:
        latent: what the closing step begins with, bfloat16 [n, C, h, w].
        sigma: share of noise in it [n].
        kept: what a random step began with: an earlier one, or any of a prompt that asks for no
            detail; bfloat16 [n, C, h, w].
        kept_sigma: share of noise in that [n].
        kept_velocity: what the network found for it, bfloat16 [n, C, h, w].
        control: scaled latents of the degraded pictures, likewise.
        target: the wanted pictures, uint8 [n, H, W, 3].
        prompt: indices into `training.prompts.PROMPTS` [n].
    """

    name: ClassVar[str] = "closing"
    first_crops: ClassVar[int] = 600_000_000

    latent: Tensor
    sigma: Tensor
    kept: Tensor
    kept_sigma: Tensor
    kept_velocity: Tensor
    control: Tensor
    target: Tensor
    prompt: Tensor

    @classmethod
    def make(
        cls,
        vae: AutoencoderKL,
        network: TrainedNetwork,
        targets: Tensor,
        controls: Tensor,
        prompt: Tensor,
    ) -> "ClosingStates":
        """As `training.shards.Made`, by a network of which `has_closing_step` is true."""
        control = encode(vae, to_batch(list(controls.numpy())))
        taken = network.steps(control, prompt.to(control.device))
        steps = [step for step in taken if step.sigma > HARDLY_ANY]
        closing, earlier = steps[-1], len(steps) - 1
        draws = torch.rand(len(prompt)) * (earlier + (~asks_for_detail(prompt)).float())
        chosen = [steps[int(draw)] for draw in draws.tolist()]
        return cls(
            latent=closing.latent.bfloat16(),
            sigma=torch.full((len(prompt),), closing.sigma),
            kept=torch.stack([step.latent[i] for i, step in enumerate(chosen)]).bfloat16(),
            kept_sigma=torch.tensor([step.sigma for step in chosen]),
            kept_velocity=torch.stack(
                [step.velocity[i] for i, step in enumerate(chosen)]
            ).bfloat16(),
            control=control.bfloat16(),
            target=targets,
            prompt=prompt,
        )


def has_closing_step(network: TrainedNetwork) -> bool:
    """Whether more than one step of a network's sampling does something."""
    return sum(sigma > HARDLY_ANY for sigma in network.schedule.sigmas.tolist()) > 1
