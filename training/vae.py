"""Stage one: a small autoencoder with 16 latent channels and factor 4."""

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from training.loop import CosineTraining, Crops

BLOCK_CHANNELS = (32, 64, 64)
KL_WEIGHT = 1e-5
GRADIENT_WEIGHT = 0.5


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


def train_vae(crops: Crops, out: Path, *, steps: int, seed: int) -> AutoencoderKL:
    """Train on 64-px crops: L1, L1 of the image gradient, and a faint KL term.

    Afterwards ``shift_factor`` and ``scaling_factor`` are set so that latents of training crops
    have mean 0 and standard deviation 1.

    Args:
        crops: source of training crops.
        out: folder for the state after every 250 steps and the finished model.
        steps: optimizer steps of batch 16.
        seed: seed of initial weights and latent noise.
    """
    torch.manual_seed(seed)
    vae = new_vae()

    def loss_of(step: int) -> Tensor:
        images = crops.images(16, 64, step) * 2 - 1
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(images).latent_dist
            decoded = vae.decode(posterior.sample()).sample.float()
        error = decoded - images
        rough = F.l1_loss(decoded.diff(dim=2), images.diff(dim=2))
        rough = rough + F.l1_loss(decoded.diff(dim=3), images.diff(dim=3))
        return error.abs().mean() + GRADIENT_WEIGHT * rough + KL_WEIGHT * posterior.kl().mean()

    training = CosineTraining(vae, out / "vae.pt", steps=steps, learning_rate=1e-3)
    training.run(loss_of)
    with torch.no_grad():
        latents = vae.encode(crops.images(256, 64, steps) * 2 - 1).latent_dist.mean
    vae.register_to_config(
        shift_factor=latents.mean().item(), scaling_factor=1 / latents.std().item()
    )
    vae.save_pretrained(out / "vae")
    return vae
