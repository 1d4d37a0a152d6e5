"""What a network begins its closing steps with, by its own sampling, and some step to be kept.

Steps that do something are meant: schedules of diffusers end with one from hardly any noise.
"""

from dataclasses import dataclass
from itertools import islice, pairwise
from typing import ClassVar

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from training.crops import to_values
from training.pairs import encode
from training.sampled import TrainedNetwork
from training.windows import asks_for_detail

HARDLY_ANY = 0.02
"""Share of noise from which a step changes next to nothing."""
CLOSING_STEPS = 3


@dataclass(frozen=True)
class Stride:
    """One closing step.

    Attributes:
        sigma: share of noise before it.
        change: of that, below 0.
    """

    sigma: float
    change: float


@dataclass(frozen=True)
class ClosingStates:
    """Samples; see `training.shards`.

    Attributes:
        latent: what the closing steps begin with, bfloat16 [n, C, h, w].
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
        """As `training.shards.Made`, by a network that has `closing_strides`."""
        control = encode(vae, to_values(controls, vae.device))
        taken = network.steps(control, prompt.to(control.device, non_blocking=True))
        steps = list(islice(taken, len(_sigmas(network))))
        earlier = len(steps) - len(closing_strides(network))
        among = torch.where(asks_for_detail(prompt), earlier, len(steps))
        chosen = [steps[int(draw)] for draw in (torch.rand(len(prompt)) * among).tolist()]
        return cls(
            latent=steps[earlier].latent.bfloat16(),
            kept=torch.stack([step.latent[i] for i, step in enumerate(chosen)]).bfloat16(),
            kept_sigma=torch.tensor([step.sigma for step in chosen]),
            kept_velocity=torch.stack(
                [step.velocity[i] for i, step in enumerate(chosen)]
            ).bfloat16(),
            control=control.bfloat16(),
            target=targets,
            prompt=prompt,
        )


def closing_strides(network: TrainedNetwork) -> list[Stride]:
    """The last steps that do something, `CLOSING_STEPS` of them, or all but the first.

    The last one goes all the way to the image. None where sampling is a single step.
    """
    closing = _sigmas(network)[1:][-CLOSING_STEPS:]
    return [Stride(sigma, after - sigma) for sigma, after in pairwise([*closing, 0.0])]


def _sigmas(network: TrainedNetwork) -> list[float]:
    """Shares of noise of the steps that do something."""
    return [sigma for sigma in network.schedule.sigmas.tolist() if sigma > HARDLY_ANY]
