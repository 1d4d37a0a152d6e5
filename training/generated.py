"""Latents that trained networks make, with the pictures they should have been.

A decoder is trained on latents of photos and meets those that a network makes. They differ: what
the network could not know is missing or invented in them, and patches show. The decoder can be
trained for them once the network is there (`training.refined_decoder`).
"""

from dataclasses import dataclass
from typing import ClassVar

from diffusers import AutoencoderKL
from torch import Tensor

from training.crops import to_values
from training.pairs import encode
from training.sampled import TrainedNetwork


@dataclass(frozen=True)
class Generated:
    """Samples; see `training.shards`.

    Attributes:
        latent: scaled latents as a network made them, bfloat16 [n, C, h, w].
        encoded: those of the wanted pictures, likewise.
        target: the wanted pictures, uint8 [n, H, W, 3].
        prompt: indices into `training.prompts.PROMPTS` [n].
    """

    name: ClassVar[str] = "generated"
    first_crops: ClassVar[int] = 500_000_000

    latent: Tensor
    encoded: Tensor
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
    ) -> "Generated":
        """As `training.shards.Made`."""
        control = encode(vae, to_values(controls, vae.device))
        encoded = encode(vae, to_values(targets, vae.device)).bfloat16()
        latent = network.sample(control, prompt.to(control.device)).bfloat16()
        return cls(latent, encoded, targets, prompt)
