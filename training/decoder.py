"""After stage one, whenever there is time: the decoder alone, trained on.

The encoder stays as it is, so latents, and networks trained on them, stay valid.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from training.ahead import made_ahead
from training.autoencoder import LATENT_NOISE, load_autoencoder, reconstruction_loss
from training.autoencoder_start import keep_anchors
from training.averages import Averages
from training.crops import Crops
from training.device import autocast
from training.loop import Training
from training.optimizers import adamw
from training.schedule import Schedule

AVERAGE_DECAY = 0.999
FIRST_STEP = 500_000_000
"""Batches from here on, which stage one has not seen."""


MOST_STEPS = 100_000_000


@dataclass(frozen=True)
class DecoderRun:
    """How long and on what the decoder trains.

    Attributes:
        schedule: of the learning rate.
        pixels: image pixels in a batch of 128-px crops.
        learning_rate: its peak; it starts from trained weights.
        workers: processes that make crops; 0 for none.
    """

    schedule: Schedule
    pixels: int = 4 * 64 * 64
    learning_rate: float = 3e-4
    workers: int = 0


def train_decoder(
    crops: Crops,
    out: Path,
    run: DecoderRun,
    *,
    device: torch.device,
    minutes: float = float("inf"),
) -> bool:
    """Train on, and overwrite ``out/vae`` when the end was reached; returns whether it was.

    Args:
        crops: of training photos.
        out: folder with the autoencoder, and for the state.
        run: how long.
        device: where to train.
        minutes: wall time after which to stop, to be continued later.
    """
    vae, training = decoder_training(
        out, device, run.schedule, run.learning_rate, AVERAGE_DECAY, "decoder.pt"
    )
    training.resume()
    make = partial(_images, crops, run.pixels // 128**2)
    images = made_ahead(make, range(training.step, MOST_STEPS), run.workers)

    def batch_of(_step: int) -> tuple[Tensor]:
        there = next(images)
        return (there.to(device, memory_format=torch.channels_last, non_blocking=True),)

    def loss_of(there: Tensor) -> Tensor:
        with autocast(device):
            return decoder_loss(vae, there)

    finished = training.run(batch_of, loss_of, minutes=minutes)
    if finished:
        training.averages.copy_to(vae.decoder, AVERAGE_DECAY)
        vae.cpu().save_pretrained(out / "vae")
    return finished


def decoder_training(
    out: Path,
    device: torch.device,
    schedule: Schedule,
    learning_rate: float,
    decay: float,
    state: str,
    *,
    graphs: bool = False,
) -> tuple[AutoencoderKL, Training]:
    """The autoencoder in ``out``, of which the decoder alone learns, and its training.

    Args:
        out: folder with the autoencoder.
        device: where to train.
        schedule: of the learning rate.
        learning_rate: its peak.
        decay: of the average of the weights.
        state: name of the state's file in ``out``.
        graphs: take steps as CUDA graphs.
    """
    vae = load_autoencoder(out, device)
    vae.decoder.requires_grad_(True)
    keep_anchors(vae)
    training = Training(
        vae.decoder,
        [adamw(vae.decoder.parameters(), learning_rate, weight_decay=0.0)],
        schedule,
        Averages(vae.decoder, [decay]),
        out / state,
        graphs=graphs,
    )
    return vae, training


def _images(crops: Crops, count: int, step: int) -> Tensor:
    return crops.batch(count, 128, FIRST_STEP + step)


def decoder_loss(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Loss on images [B, 3, H, W], -1 ... 1, through the frozen encoder."""
    with torch.no_grad():
        latent = vae.encode(images).latent_dist.mean
    noise = torch.randn_like(latent) * (LATENT_NOISE / vae.config.scaling_factor)
    return reconstruction_loss(vae.decode(latent + noise).sample.float(), images)
