"""What a network begins its closing step with, by its own sampling, and some earlier one.

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

HARDLY_ANY = 0.02
"""Share of noise from which a step changes next to nothing."""


@dataclass(frozen=True)
class ClosingStates:
    """Samples; see `training.shards`.

    Attributes:
        latent: what the closing step begins with, bfloat16 [n, C, h, w].
        sigma: share of noise in it [n].
        earlier: what a random earlier step began with, bfloat16 [n, C, h, w].
        earlier_sigma: share of noise in that [n].
        earlier_velocity: what the network found for it, bfloat16 [n, C, h, w].
        control: scaled latents of the degraded pictures, likewise.
        target: the wanted pictures, uint8 [n, H, W, 3].
        prompt: indices into `training.prompts.PROMPTS` [n].
    """

    name: ClassVar[str] = "closing"

    latent: Tensor
    sigma: Tensor
    earlier: Tensor
    earlier_sigma: Tensor
    earlier_velocity: Tensor
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
        """As `training.shards.Made`.

        Raises:
            ValueError: the network restores in one step, which has no earlier one.
        """
        control = encode(vae, to_batch(list(controls.numpy())))
        taken = network.steps(control, prompt.to(control.device))
        steps = [step for step in taken if step.sigma > HARDLY_ANY]
        if len(steps) < 2:
            raise ValueError("a network that samples in one step has no earlier ones to keep")
        *before, closing = steps
        chosen = torch.randint(len(before), (len(prompt),)).tolist()
        return cls(
            latent=closing.latent.bfloat16(),
            sigma=torch.full((len(prompt),), closing.sigma),
            earlier=torch.stack([before[k].latent[i] for i, k in enumerate(chosen)]).bfloat16(),
            earlier_sigma=torch.tensor([before[k].sigma for k in chosen]),
            earlier_velocity=torch.stack(
                [before[k].velocity[i] for i, k in enumerate(chosen)]
            ).bfloat16(),
            control=control.bfloat16(),
            target=targets,
            prompt=prompt,
        )
