"""Stage one: a small autoencoder with 16 latent channels and factor 4.

It is trained as a plain autoencoder whose decoder sees latents with a little Gaussian noise, in
proportion to their spread. The noise does what the KL term of a variational autoencoder is for,
latents that decode well when they are slightly off, at a cost that is known: a noise of 3 % of the
spread cannot hide more than the fidelity it leaves. The posterior's variance is set to that noise.

A second term asks that latents shrunk by half decode to the image shrunk by half, which keeps fine
image detail in the fine detail of the latent and makes it easier to generate (Skorokhodov et al.
2025, "Improving the diffusability of autoencoders").
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from training.autoencoder_start import block_transform, keep_anchors, start_as_transform_code
from training.averages import Averages
from training.crops import Crops
from training.device import autocast, multiplies_bfloat16
from training.loop import Training
from training.optimizers import adamw
from training.schedule import WarmupStableDecay

BLOCK_CHANNELS = (24, 48, 96)
LATENT_CHANNELS = 16
LATENT_NOISE = 0.03
"""Standard deviation of the noise, in units of the latents' own."""
SQUARED_WEIGHT = 5.0
GRADIENT_WEIGHT = 0.25
HALVED_WEIGHT = 0.25
AVERAGE_DECAY = 0.998
CALIBRATION_CROPS = 256
CALIBRATION = 1_000_000_000
"""Step that no run reaches, for batches of their own."""


@dataclass(frozen=True)
class AutoencoderRun:
    """How long and on what the autoencoder trains.

    Attributes:
        steps: optimizer steps, the last ``decay`` of them with a falling learning rate.
        decay: steps of the fall.
        pixels: image pixels in a batch. Every fourth batch is of 128-px crops, the others of 64.
        learning_rate: its peak.
    """

    steps: int = 2200
    decay: int = 900
    pixels: int = 4 * 64 * 64
    learning_rate: float = 6e-4


def new_autoencoder() -> AutoencoderKL:
    """An autoencoder of the bundled model's shape (1,480,859 parameters), with random weights.

    It has no attention, so that its cost grows with the area alone.
    """
    stages = len(BLOCK_CHANNELS)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * stages,
        up_block_types=("UpDecoderBlock2D",) * stages,
        block_out_channels=BLOCK_CHANNELS,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=1,
        sample_size=128,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )


def train_autoencoder(
    crops: Crops,
    out: Path,
    run: AutoencoderRun,
    *,
    seed: int,
    device: torch.device,
    minutes: float = float("inf"),
) -> bool:
    """Train, and write ``out/vae`` when the end was reached; returns whether it was.

    ``shift_factor`` and ``scaling_factor`` are set so that latents of training crops have mean 0
    and standard deviation 1.

    Args:
        crops: of training photos.
        out: folder for the state and the finished model.
        run: how long.
        seed: seed of the initial weights.
        device: where to train.
        minutes: wall time after which to stop, to be continued later.
    """
    torch.manual_seed(seed)
    vae = new_autoencoder()
    sample = crops.batch(CALIBRATION_CROPS, 64, CALIBRATION)
    start_as_transform_code(vae, block_transform(sample, kept=11, latents=LATENT_CHANNELS))
    vae = vae.to(device, memory_format=torch.channels_last)
    keep_anchors(vae)
    training = Training(
        vae,
        [adamw(vae.parameters(), run.learning_rate, weight_decay=0.0)],
        WarmupStableDecay(run.steps, decay=run.decay),
        Averages(vae, [AVERAGE_DECAY]),
        out / "vae.pt",
    )

    def batch_of(step: int) -> tuple[Tensor]:
        size = 128 if step % 4 == 3 else 64
        images = crops.batch(run.pixels // size**2, size, step)
        return (images.to(device, memory_format=torch.channels_last),)

    def loss_of(images: Tensor) -> Tensor:
        with autocast(device):
            return loss(vae, images)

    finished = training.run(batch_of, loss_of, minutes=minutes)
    if finished:
        write_autoencoder(training, crops, out / "vae")
    return finished


def loss(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Loss on images [B, 3, H, W], -1 ... 1."""
    latent = vae.encode(images).latent_dist.mean
    noise = torch.randn_like(latent) * (LATENT_NOISE * latent.detach().std())
    decoded = vae.decode(latent + noise).sample.float()
    halved = vae.decode(F.avg_pool2d(latent, 2)).sample.float()
    return reconstruction_loss(decoded, images) + HALVED_WEIGHT * F.l1_loss(
        halved, F.avg_pool2d(images, 2)
    )


def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Pictures [n, 3, H, W], about -1 ... 1, of scaled latents; gradients pass."""
    unscaled = latents / vae.config.scaling_factor + vae.config.shift_factor
    device = latents.device
    with torch.autocast(device.type, torch.bfloat16, enabled=multiplies_bfloat16(device)):
        decoded = vae.decode(unscaled.contiguous(memory_format=torch.channels_last)).sample
    pictures: Tensor = decoded.float()
    return pictures


def reconstruction_loss(decoded: Tensor, images: Tensor) -> Tensor:
    """L1, squared and gradient error of ``decoded`` [B, 3, H, W]."""
    return (
        F.l1_loss(decoded, images)
        + SQUARED_WEIGHT * F.mse_loss(decoded, images)
        + GRADIENT_WEIGHT * F.l1_loss(decoded.diff(dim=2), images.diff(dim=2))
        + GRADIENT_WEIGHT * F.l1_loss(decoded.diff(dim=3), images.diff(dim=3))
    )


@torch.no_grad()
def write_autoencoder(training: Training, crops: Crops, folder: Path) -> None:
    """Write the averaged weights of ``training`` as a diffusers folder, in float32."""
    vae = new_autoencoder()
    training.averages.copy_to(vae, AVERAGE_DECAY)
    parts = [crops.batch(16, 64, CALIBRATION + n) for n in range(CALIBRATION_CROPS // 16)]
    latents = torch.cat([vae.encode(images).latent_dist.mean for images in parts])
    deviation = latents.std().item()
    vae.encoder.conv_out.bias[LATENT_CHANNELS:] = 2 * torch.tensor(LATENT_NOISE * deviation).log()
    vae.register_to_config(shift_factor=latents.mean().item(), scaling_factor=1 / deviation)
    vae.save_pretrained(folder)


def load_autoencoder(out: Path, device: torch.device) -> AutoencoderKL:
    """The autoencoder that ``train_autoencoder`` wrote, frozen.

    Weights in channels-last order halve the time of an encoding on a processor.
    """
    vae = AutoencoderKL.from_pretrained(out / "vae", low_cpu_mem_usage=False)
    return vae.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
