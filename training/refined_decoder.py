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

from training.autoencoder import reconstruction_loss
from training.decoder import decoder_training
from training.detail import (
    balanced,
    gradient_difference,
    overshoot_error,
    pattern_error,
    quiet_error,
    ragged_error,
    spectrum_difference,
    weave_error,
)
from training.device import multiplies_bfloat16
from training.generated import Generated
from training.loop import Batch
from training.schedule import Schedule
from training.windows import PHOTO_SHARE, Windows, photos_of

AVERAGE_DECAY = 0.998
PHOTO_WEIGHT = 1.2
"""Of their error, by one plus the weight of an error of detail."""
PATTERN_WEIGHT = 100.0
"""Of the error that repeats with the patches: twenty times that of any other squared error."""


@dataclass(frozen=True)
class Pulls:
    """How hard errors of detail pull at the picture, by what the other errors pull.

    Attributes:
        detail: each of the two that ask for detail, which decides then; the other errors say where
            there is none.
        quiet: that of speckle in flat fields.
        overshoot: that of single dots.
        ragged: that of teeth along edges.
        weave: that of dots on the grid of the latent.
    """

    detail: float = 90.0
    quiet: float = 20.0
    overshoot: float = 3.0
    ragged: float = 12.0
    weave: float = 15.0

    @property
    def photo_weight(self) -> float:
        """Of the error of photos, which counts more the harder ``detail`` pulls."""
        return PHOTO_WEIGHT * (1 + self.detail)


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
    pulls: Pulls = Pulls()


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
    unscaled = latents / vae.config.scaling_factor + vae.config.shift_factor
    device = latents.device
    with torch.autocast(device.type, torch.bfloat16, enabled=multiplies_bfloat16(device)):
        decoded = vae.decode(unscaled.contiguous(memory_format=torch.channels_last)).sample
    decoded = decoded.float()
    photos = photos_of(len(images))
    made = slice(0, len(images) - photos)
    total = _error(decoded[made], images[made]) * (1 - PHOTO_SHARE)
    pair = decoded[made], images[made]
    share = detailed[made] / detailed[made].sum().clamp_min(1)
    errors = [
        (factor, (error(*pair) * share).sum())
        for factor, error in (
            (pulls.detail, gradient_difference),
            (pulls.detail, spectrum_difference),
            (pulls.quiet, quiet_error),
            (pulls.overshoot, overshoot_error),
            (pulls.ragged, ragged_error),
            (pulls.weave, weave_error),
        )
        if factor
    ]
    if errors:
        total = balanced(decoded, total, errors)
    if not photos:
        return total
    of_photos = slice(len(images) - photos, None)
    weight = PHOTO_SHARE * pulls.photo_weight
    return total + weight * _error(decoded[of_photos], images[of_photos])


def _error(decoded: Tensor, images: Tensor) -> Tensor:
    return reconstruction_loss(decoded, images) + PATTERN_WEIGHT * pattern_error(decoded, images)
