"""A network's closing step, trained on by the picture that comes of it.

Flow matching teaches the mean of what is possible, step by step, and never shows the network a
picture of its own: what earlier steps got wrong, edges that do not meet from patch to patch for
one, goes through to the end. The decoder can be trained for that (`training.refined_decoder`), but
knows neither the degraded picture nor where patches begin. The network's closing step knows both,
and begins with a third of noise, so that much can still be changed.

It is taken from states to which the network's own sampling led, all the way to the image, decoded
by the frozen decoder, and judged as the decoder was. (Backpropagation through the last steps of
sampling alone: DRaFT-K, Clark et al. 2024, arXiv 2309.17400.) That is done for prompts that ask for
detail. Earlier steps, and all steps of the other prompts, are held where they are by what the
network found for them before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from training.autoencoder import decode
from training.averages import Averages
from training.closing_states import ClosingStates
from training.device import autocast
from training.loop import Batch, Training
from training.network import (
    TIMESTEPS,
    compile_blocks,
    load_exported,
    new_network,
    prompt_table,
)
from training.networks import NamedNetwork
from training.optimizers import adamw
from training.prompts import PromptTable
from training.pulls import Pulls, pulled_error
from training.schedule import Schedule
from training.shards import digest, sampled_by
from training.windows import NATURAL, asks_for_detail, draw_samples

AVERAGE_DECAY = 0.995
KEPT_SHARE = 0.2
"""Of a batch: steps that are to stay as they are."""
KEPT_WEIGHT = 1.0
"""Of the squared error of their velocities, beside the picture's error."""
PULLS = Pulls(detail=90, quiet=30, overshoot=4, ragged=40, weave=15, pattern=60)
"""The network can do more about edges and patches than a decoder."""
CROPS_PX = (128, 192)
"""Sides of crops, in turn; a tile is as large as the last."""


@dataclass(frozen=True)
class ClosingRun:
    """How long and on what the network trains.

    Attributes:
        named: its shape and seed.
        schedule: of the learning rate.
        count: samples of 128 px in a batch; of larger ones as many as have no more pixels, but two.
        learning_rate: its peak.
        pulls: of the errors of detail.
    """

    named: NamedNetwork
    schedule: Schedule
    count: int = 5
    learning_rate: float = 6e-5
    pulls: Pulls = PULLS


class ClosingBatches:
    """Batches for the closing step, by torch's random numbers.

    Args:
        samples: of one crop size.
        device: where they lie, and where batches are made.
    """

    def __init__(self, samples: ClosingStates, device: torch.device) -> None:
        self._samples = ClosingStates(**{n: t.to(device) for n, t in vars(samples).items()})
        self._detailed = torch.nonzero(asks_for_detail(self._samples.prompt))[:, 0]
        of_detailed = self._samples.prompt[self._detailed]
        self._natural = self._detailed[of_detailed == NATURAL]
        self.side_px = samples.target.shape[1]

    def draw(self, count: int) -> tuple[Tensor, ...]:
        """``count`` samples, the last `kept_of` them of steps to be kept.

        Returns:
            Latents, share of noise, control latents and prompts of all, [count, ...]; of closing
            steps the wanted pictures [k, 3, H, W], -1 ... 1; of the others the velocities to keep
            [count - k, C, h, w].
        """
        own, kept_count = self._samples, kept_of(count)
        closing = draw_samples(self._detailed, self._natural, count - kept_count)
        kept = torch.randint(len(own.prompt), (kept_count,), device=closing.device)
        chosen = torch.cat([closing, kept])
        pictures = own.target[closing].permute(0, 3, 1, 2).float().div(127.5).sub(1)
        return (
            torch.cat([own.latent[closing], own.kept[kept]]).float(),
            torch.cat([own.sigma[closing], own.kept_sigma[kept]]),
            own.control[chosen].float(),
            own.prompt[chosen],
            pictures.contiguous(memory_format=torch.channels_last),
            own.kept_velocity[kept].float(),
        )


def kept_of(count: int) -> int:
    """How many of a batch are steps to be kept."""
    return max(1, round(KEPT_SHARE * count))


def train_closing(
    samples: Sequence[ClosingStates],
    start: Path,
    vae: AutoencoderKL,
    out: Path,
    run: ClosingRun,
    *,
    device: torch.device,
    minutes: float = float("inf"),
) -> nn.Module | None:
    """Train on; returns the network with averaged weights when the end was reached.

    Args:
        samples: one set for each size of crops.
        start: exported model that the samples are of.
        vae: its autoencoder, frozen, on ``device``.
        out: folder for the state, which is named after ``start``.
        run: how long.
        device: where to train.
        minutes: wall time after which to stop, to be continued later.
    """
    network = new_network(run.named.config, run.named.seed)
    load_exported(network, start)
    network.to(device)
    training = Training(
        network,
        [adamw(network.parameters(), run.learning_rate, weight_decay=0.0)],
        run.schedule,
        Averages(network, [AVERAGE_DECAY]),
        out / f"closing-{digest(_judged_by(start))[:12]}.pt",
        graphs=device.type == "cuda",
    )
    table = prompt_table(run.named.config, run.named.seed).to(device)
    if device.type == "cuda":
        compile_blocks(network)
    batches = [ClosingBatches(part, device) for part in samples]

    def batch_of(step: int) -> Batch:
        source = batches[step % len(batches)]
        return source.draw(max(2, run.count * CROPS_PX[0] ** 2 // source.side_px**2))

    def loss_of(*batch: Tensor) -> Tensor:
        return closing_loss(network, vae, table, batch, run.pulls)

    if not training.run(batch_of, loss_of, minutes=minutes):
        return None
    training.averages.copy_to(network, AVERAGE_DECAY)
    return network


def _judged_by(start: Path) -> Iterator[bytes]:
    """What a run depends on of the model it begins with."""
    yield from sampled_by(start)
    yield (start / "vae/diffusion_pytorch_model.safetensors").read_bytes()


def closing_loss(
    network: nn.Module,
    vae: AutoencoderKL,
    table: PromptTable,
    batch: tuple[Tensor, ...],
    pulls: Pulls,
) -> Tensor:
    """Error of the pictures that the closing step gives, and of the velocities to be kept.

    Args:
        network: maps as `runtime.network.family.LatentNetwork` does.
        vae: the autoencoder, frozen.
        table: the prompts that samples name.
        batch: as `ClosingBatches.draw` has it.
        pulls: how hard errors of detail pull.
    """
    latent, sigma, control, prompt, images, kept = batch
    with autocast(latent.device):
        velocity = network(
            latent, control, table.embeds[prompt], table.pooled[prompt], sigma * TIMESTEPS
        ).float()
    closing = slice(0, len(images))
    image = latent[closing] - sigma[closing, None, None, None] * velocity[closing]
    all_of_them = torch.ones(len(images), device=latent.device)
    picture = pulled_error(decode(vae, image), images, all_of_them, pulls) / pulls.total
    return picture + KEPT_WEIGHT * F.mse_loss(velocity[len(images) :], kept)
