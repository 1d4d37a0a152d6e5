"""A network's closing steps, trained on by the picture that comes of them.

Flow matching teaches the mean of what is possible, step by step, and never shows the network a
picture of its own: what earlier steps got wrong, edges that do not meet from patch to patch for
one, goes through to the end. The decoder can be trained for that (`training.refined_decoder`), but
knows neither the degraded picture nor where patches begin. The network's closing steps know both,
and begin with two thirds of noise, so that much can still be changed.

They are taken from states to which the network's own sampling led, all the way to the image,
decoded by the frozen decoder, and judged as the decoder was. (Backpropagation through the last K
steps of sampling: DRaFT-K, Clark et al. 2024, arXiv 2309.17400.) That is done for prompts that ask
for detail. Earlier steps, and all steps of the other prompts, are held where they are by what the
network found for them before.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from training.autoencoder import decode
from training.averages import Averages
from training.closing_states import ClosingStates, Stride
from training.device import autocast
from training.loop import SAVE_EVERY, Batch, Training
from training.made_pool import MadePool
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
"""Of what goes through the network at once: steps that are to stay as they are."""
KEPT_WEIGHT = 1.0
"""Of the squared error of their velocities, beside the picture's error."""
PULLS = Pulls(detail=300, quiet=40, overshoot=8, ragged=50, weave=15, pattern=60, colour=40)
"""The network can do more about patches than a decoder, which does not know where they begin."""
GPU_SAVE_EVERY = 1000
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
    """Batches for the closing steps, by torch's random numbers.

    Args:
        samples: of one crop size.
        device: where batches are made, and the samples are taken unless they are there.
    """

    def __init__(self, samples: ClosingStates, device: torch.device) -> None:
        # Looked through before they are moved: a processor need not wait for itself.
        detailed = torch.nonzero(asks_for_detail(samples.prompt))[:, 0]
        natural = detailed[samples.prompt[detailed] == NATURAL]
        self._detailed, self._natural = (
            chosen.to(device, non_blocking=True) for chosen in (detailed, natural)
        )
        self._samples = ClosingStates(
            **{name: tensor.to(device, non_blocking=True) for name, tensor in vars(samples).items()}
        )
        self.side_px = samples.target.shape[1]

    def draw(self, count: int, strides: int) -> tuple[Tensor, ...]:
        """A batch of which ``count`` go through the network at each of the closing steps.

        Returns:
            Latents, control latents and prompts of k = ``count - kept_of(count)`` samples,
            [k, ...]; their wanted pictures [k, 3, H, W], -1 ... 1; then of steps to be kept, as
            many for every closing step, m in all, latents, shares of noise, control latents,
            prompts and the velocities to keep [m, ...].
        """
        own = self._samples
        closing = draw_samples(self._detailed, self._natural, count - kept_of(count))
        kept = torch.randint(
            len(own.prompt), (kept_of(count) * strides,), device=self._detailed.device
        )
        pictures = own.target[closing].permute(0, 3, 1, 2).float().div(127.5).sub(1)
        return (
            own.latent[closing].float(),
            own.control[closing].float(),
            own.prompt[closing],
            pictures.contiguous(memory_format=torch.channels_last),
            own.kept[kept].float(),
            own.kept_sigma[kept],
            own.control[kept].float(),
            own.prompt[kept],
            own.kept_velocity[kept].float(),
        )


Source = Callable[[int], ClosingBatches]
"""What batches of a step are drawn from."""


def in_turn(samples: Sequence[ClosingStates], device: torch.device) -> Source:
    """One set of samples after the other, a step each."""
    batches = [ClosingBatches(part, device) for part in samples]
    return lambda step: batches[step % len(batches)]


class Newest:
    """What a pool holds at a step.

    Args:
        pool: of samples.
        device: where they lie.
    """

    def __init__(self, pool: MadePool[ClosingStates], device: torch.device) -> None:
        self._pool, self._device = pool, device
        self._batches: ClosingBatches | None = None

    def __call__(self, _step: int) -> ClosingBatches:
        """All its samples."""
        newer = self._pool.newer()
        if newer is not None:
            self._batches = ClosingBatches(newer, self._device)
        assert self._batches is not None  # a pool gives something the first time
        return self._batches


def kept_of(count: int) -> int:
    """How many of those that go through the network at once are steps to be kept."""
    return max(1, round(KEPT_SHARE * count))


def train_closing(
    source: Source,
    strides: Sequence[Stride],
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
        source: of samples.
        strides: the closing steps.
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
        save_every=SAVE_EVERY if device.type == "cpu" else GPU_SAVE_EVERY,
        graphs=device.type == "cuda",
    )
    table = prompt_table(run.named.config, run.named.seed).to(device)
    if device.type == "cuda":
        compile_blocks(network)

    def batch_of(step: int) -> Batch:
        batches = source(step)
        count = max(2, run.count * CROPS_PX[0] ** 2 // batches.side_px**2)
        return batches.draw(count, len(strides))

    def loss_of(*batch: Tensor) -> Tensor:
        return closing_loss(network, vae, table, strides, batch, run.pulls)

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
    strides: Sequence[Stride],
    batch: tuple[Tensor, ...],
    pulls: Pulls,
) -> Tensor:
    """Error of the pictures to which the closing steps lead, and of the velocities to be kept.

    Args:
        network: maps as `runtime.network.family.LatentNetwork` does.
        vae: the autoencoder, frozen.
        table: the prompts that samples name.
        strides: the closing steps.
        batch: as `ClosingBatches.draw` has it.
        pulls: how hard errors of detail pull.
    """
    latent, control, prompt, images, *of_kept = batch
    count = len(latent)
    moved = latent.new_zeros(())
    # As many go through the network at every step, so that it is compiled for one number of them.
    for stride, *kept in zip(strides, *(t.chunk(len(strides)) for t in of_kept), strict=True):
        kept_latent, kept_sigma, kept_control, kept_prompt, kept_velocity = kept
        prompts = torch.cat([prompt, kept_prompt])
        sigmas = torch.cat([kept_sigma.new_full((count,), stride.sigma), kept_sigma])
        with autocast(latent.device):
            velocity = network(
                torch.cat([latent, kept_latent]),
                torch.cat([control, kept_control]),
                table.embeds[prompts],
                table.pooled[prompts],
                sigmas * TIMESTEPS,
            ).float()
        latent = latent + stride.change * velocity[:count]
        moved = moved + F.mse_loss(velocity[count:], kept_velocity) / len(strides)
    all_of_them = torch.ones(count, device=latent.device)
    picture = pulled_error(decode(vae, latent), images, all_of_them, pulls) / pulls.total
    return picture + KEPT_WEIGHT * moved
