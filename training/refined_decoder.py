"""The decoder, trained on for what networks make instead of what photos encode to.

Two things are asked of it. Latents that a network made become the pictures that were wanted:
absolute, squared and gradient error as before, and more of it for what repeats with the patches;
and, where the prompt wants detail, as much of it as the truth has (`training.detail`). And latents
of photos still become the photos.

The encoder stays as it is, and so do all networks.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from training.autoencoder import LATENT_NOISE, reconstruction_loss
from training.crops import to_batch
from training.decoder import decoder_training
from training.detail import (
    balanced,
    gradient_difference,
    pattern_error,
    spectrum_difference,
)
from training.device import multiplies_bfloat16
from training.generated import Generated
from training.loop import Batch
from training.prompts import NAMES
from training.schedule import Schedule

AVERAGE_DECAY = 0.998
WINDOW = 24
"""Side of the windows that batches have, in latent pixels."""
PHOTO_SHARE = 0.375
"""Of a batch: latents of photos."""
PHOTO_WEIGHT = 0.4
"""Of their error, by one plus the weight of an error of detail."""
DETAILED = tuple(NAMES.index(name) for name in ("natural", "sharp"))
"""Prompts that ask for all the detail there is."""
DETAIL_WEIGHT = 15.0
"""Detail decides then; the other errors say where there is none."""
PATTERN_WEIGHT = 100.0
"""Of the error that repeats with the patches: twenty times that of any other squared error."""


@dataclass(frozen=True)
class RefineRun:
    """How long and on what the decoder trains.

    Attributes:
        schedule: of the learning rate.
        count: windows in a batch.
        learning_rate: its peak.
        detail: how hard each of the two errors of detail pulls, by the others together.
    """

    schedule: Schedule
    count: int = 8
    learning_rate: float = 2e-4
    detail: float = DETAIL_WEIGHT


def refine_decoder(
    samples: Generated,
    out: Path,
    run: RefineRun,
    *,
    device: torch.device,
    minutes: float = float("inf"),
) -> bool:
    """Train on, and overwrite ``out/vae`` when the end was reached; returns whether it was.

    Args:
        samples: what networks made.
        out: folder with the autoencoder, and for the state.
        run: how long.
        device: where to train.
        minutes: wall time after which to stop, to be continued later.
    """
    vae, training = decoder_training(
        out, device, run.schedule, run.learning_rate, AVERAGE_DECAY, "refined.pt"
    )

    def batch_of(_step: int) -> Batch:
        latents, images, detailed = draw(samples, run.count)
        return (
            latents.to(device),
            images.to(device, memory_format=torch.channels_last),
            detailed.to(device),
        )

    def loss_of(latents: Tensor, images: Tensor, detailed: Tensor) -> Tensor:
        return refining_loss(vae, latents, images, detailed, run.detail)

    finished = training.run(batch_of, loss_of, minutes=minutes)
    if finished:
        training.averages.copy_to(vae.decoder, AVERAGE_DECAY)
        vae.cpu().save_pretrained(out / "vae")
    return finished


def draw(samples: Generated, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random windows of random samples, by torch's random numbers.

    Returns:
        Scaled latents [count, C, w, w], the last ones of photos; pictures [count, 3, W, W],
        -1 ... 1; and which of them were made to have detail, bool [count].
    """
    photos = _photos(count)
    chosen = torch.randint(len(samples.prompt), (count,))
    side = samples.latent.shape[-1]
    window = min(WINDOW, side)
    scale = samples.target.shape[1] // side
    corners = torch.randint(side - window + 1, (count, 2)).tolist()
    latents, pictures = [], []
    for i, (index, (top, left)) in enumerate(zip(chosen.tolist(), corners, strict=True)):
        source = samples.encoded if i >= count - photos else samples.latent
        latent = source[index, :, top : top + window, left : left + window].float()
        if i >= count - photos:
            latent = latent + LATENT_NOISE * torch.randn_like(latent)
        latents.append(latent)
        rows = slice(scale * top, scale * (top + window))
        columns = slice(scale * left, scale * (left + window))
        pictures.append(samples.target[index, rows, columns].numpy())
    detailed = torch.isin(samples.prompt[chosen], torch.tensor(DETAILED))
    detailed[count - photos :] = False
    return torch.stack(latents), to_batch(pictures), detailed


def refining_loss(
    vae: AutoencoderKL, latents: Tensor, images: Tensor, detailed: Tensor, weight: float
) -> Tensor:
    """Error of the decoded pictures.

    Args:
        vae: its decoder learns.
        latents: scaled [n, C, w, w].
        images: wanted [n, 3, W, W], -1 ... 1.
        detailed: which shall have as much detail as wanted [n]; of the photos, which come last as
            `draw` has it, none.
        weight: how hard each error of detail pulls.

    Returns:
        The loss, a scalar.
    """
    unscaled = latents / vae.config.scaling_factor + vae.config.shift_factor
    device = latents.device
    with torch.autocast(device.type, torch.bfloat16, enabled=multiplies_bfloat16(device)):
        decoded = vae.decode(unscaled.contiguous(memory_format=torch.channels_last)).sample
    decoded = decoded.float()
    photos = _photos(len(images))
    made = slice(0, len(images) - photos)
    total = _error(decoded[made], images[made]) * (1 - PHOTO_SHARE)
    if bool(detailed.any()) and weight:
        pair = decoded[detailed], images[detailed]
        details = [gradient_difference(*pair), spectrum_difference(*pair)]
        total = balanced(decoded, total, details, weight)
    if not photos:
        return total
    of_photos = slice(len(images) - photos, None)
    share = PHOTO_SHARE * PHOTO_WEIGHT * (1 + weight)
    return total + share * _error(decoded[of_photos], images[of_photos])


def _photos(count: int) -> int:
    """How many of a batch are latents of photos."""
    return round(PHOTO_SHARE * count)


def _error(decoded: Tensor, images: Tensor) -> Tensor:
    return reconstruction_loss(decoded, images) + PATTERN_WEIGHT * pattern_error(decoded, images)
