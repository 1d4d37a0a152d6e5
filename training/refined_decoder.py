"""The decoder, trained on for what networks make instead of what photos encode to.

Two things are asked of it. Latents that a network made become the pictures that were wanted:
absolute, squared and gradient error as before, and more of it for what repeats with the patches;
and, where the prompt wants detail, as much of it as the truth has and none where that has none
(`training.detail`). And latents of photos still become the photos.

The encoder stays as it is, and so do all networks.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from training.autoencoder import decode
from training.decoder import decoder_training
from training.generated import Generated
from training.loop import Batch
from training.pulls import Pulls, picture_error, pulled_error
from training.schedule import Schedule
from training.windows import PHOTO_SHARE, Windows, photos_of

AVERAGE_DECAY = 0.998
PHOTO_WEIGHT = 1.2
"""Of their error, by one plus the weight of an error of detail, which they have to stand."""
PULLS = Pulls(detail=400, quiet=170, overshoot=6, ragged=60, weave=60, colour=40, features=500)
"""Patterns of the patches are not the decoder's to take away: it does not know where they begin."""


@dataclass(frozen=True)
class RefineRun:
    """How long and on what the decoder trains.

    Attributes:
        schedule: of the learning rate.
        count: windows in a batch.
        learning_rate: its peak.
        pulls: of the errors of detail.
    """

    schedule: Schedule
    count: int = 8
    learning_rate: float = 2e-4
    pulls: Pulls = PULLS


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
        out,
        device,
        run.schedule,
        run.learning_rate,
        AVERAGE_DECAY,
        "refined.pt",
        graphs=device.type == "cuda",
    )

    windows = Windows(samples, device)

    def batch_of(_step: int) -> Batch:
        return windows.draw(run.count)

    def loss_of(latents: Tensor, images: Tensor, detailed: Tensor) -> Tensor:
        return refining_loss(vae, latents, images, detailed, run.pulls)

    finished = training.run(batch_of, loss_of, minutes=minutes)
    if finished:
        training.averages.copy_to(vae.decoder, AVERAGE_DECAY)
        vae.cpu().save_pretrained(out / "vae")
    return finished


def refining_loss(
    vae: AutoencoderKL, latents: Tensor, images: Tensor, detailed: Tensor, pulls: Pulls
) -> Tensor:
    """Error of the decoded pictures.

    It reads nothing off the device, so that a GPU can replay it as a graph.

    Args:
        vae: its decoder learns.
        latents: scaled [n, C, w, w].
        images: wanted [n, 3, W, W], -1 ... 1.
        detailed: which shall have as much detail as wanted [n]; of the photos, which come last as
            `Windows.draw` has it, none.
        pulls: how hard errors of detail pull.

    Returns:
        The loss, a scalar.
    """
    decoded = decode(vae, latents)
    photos = photos_of(len(images))
    made = slice(0, len(images) - photos)
    share = 1 - PHOTO_SHARE
    total = share * pulled_error(decoded[made], images[made], detailed[made], pulls)
    if not photos:
        return total
    of_photos = slice(len(images) - photos, None)
    weight = PHOTO_SHARE * PHOTO_WEIGHT * (1 + pulls.detail)
    return total + weight * picture_error(decoded[of_photos], images[of_photos])
