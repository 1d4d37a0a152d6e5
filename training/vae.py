"""Stage one: a small autoencoder with 16 latent channels and factor 4."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from training.loop import CosineTraining, Crops

BLOCK_CHANNELS = (32, 64, 64)


@dataclass(frozen=True)
class VaePhase:
    """A stretch of training with its own loss.

    The first phases keep the latents smooth by a KL term, at the cost of several dB; the last, a
    plain autoencoder on the mean of the posterior, wins most of them back.

    Attributes:
        steps: optimizer steps of batch 16.
        learning_rate: its peak.
        kl_weight: weight of the KL divergence, summed over a latent; 0 decodes the mean.
        gradient_weight: weight of the L1 error of the image's gradient.
    """

    steps: int
    learning_rate: float
    kl_weight: float
    gradient_weight: float


def new_vae() -> AutoencoderKL:
    """An untrained autoencoder of the bundled model's shape (975,235 parameters)."""
    stages = len(BLOCK_CHANNELS)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * stages,
        up_block_types=("UpDecoderBlock2D",) * stages,
        block_out_channels=BLOCK_CHANNELS,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        sample_size=128,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def train_vae(crops: Crops, out: Path, *, phases: list[VaePhase], seed: int) -> AutoencoderKL:
    """Train on 64-px crops: L1, L1 of the image gradient, and the KL term.

    Afterwards ``shift_factor`` and ``scaling_factor`` are set so that latents of training crops
    have mean 0 and standard deviation 1.

    Args:
        crops: source of training crops.
        out: folder for the state after every 250 steps and the finished model.
        phases: one after the other, each with a cosine schedule of its own.
        seed: seed of initial weights and latent noise.
    """
    torch.manual_seed(seed)
    vae = new_vae()

    first_step = 0
    for index, phase in enumerate(phases):
        training = CosineTraining(
            vae,
            out / f"vae{index}.pt",
            steps=phase.steps,
            learning_rate=phase.learning_rate,
            ema_decay=0.998,
        )
        training.run(partial(_loss, vae, crops, phase, first_step))
        first_step += phase.steps
    with torch.no_grad():
        latents = vae.encode(crops.images(256, 64, first_step) * 2 - 1).latent_dist.mean
    vae.register_to_config(
        shift_factor=latents.mean().item(), scaling_factor=1 / latents.std().item()
    )
    vae.save_pretrained(out / "vae")
    return vae


def _loss(vae: AutoencoderKL, crops: Crops, phase: VaePhase, first_step: int, step: int) -> Tensor:
    images = crops.images(16, 64, first_step + step) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(images).latent_dist
        latent = posterior.sample() if phase.kl_weight else posterior.mean
        decoded = vae.decode(latent).sample.float()
    rough = F.l1_loss(decoded.diff(dim=2), images.diff(dim=2))
    rough = rough + F.l1_loss(decoded.diff(dim=3), images.diff(dim=3))
    loss = F.l1_loss(decoded, images) + phase.gradient_weight * rough
    return loss + phase.kl_weight * posterior.kl().mean() if phase.kl_weight else loss
