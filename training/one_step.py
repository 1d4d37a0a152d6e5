"""A network that restores in one evaluation, retrained from one that takes many steps.

It begins with the control latent under a share ``sigma`` of noise and takes the whole way to the
image at once: ``x = z - sigma v(z, sigma)`` with ``z = (1 - sigma) control + sigma noise``. The
less noise, the less an error of the network is multiplied (QArtSR, arXiv 2503.05584, section on
timestep retraining); how much is best is measured, not derived.

With one evaluation there is no distribution to draw from, so errors of latents and of pictures are
minimised, as in regression: the results are smoother than those of many steps.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from training.averages import Averages
from training.device import autocast
from training.loop import Training
from training.network import (
    AVERAGE_DECAYS,
    TIMESTEPS,
    NetworkRun,
    compile_blocks,
    load_exported,
    new_network,
    position_table,
    prompt_table,
    shifted_positions,
)
from training.optimizers import network_optimizers
from training.pairs import Pairs, Samples
from training.prompts import PromptTable

PICTURE_WEIGHT = 1.0
"""Of the pictures' error beside the latents'."""
GRADIENT_WEIGHT = 1.0
STRUCTURE_WEIGHT = 0.3
PICTURES = 0.25
"""Share of a batch that is decoded: decoding costs more than the network."""
WINDOW = 7
"""Side of the windows in which structure is compared, in pixels."""
STABILITY = (0.01**2, 0.03**2)
"""C1 and C2 of SSIM for values within 0 ... 1 (Wang et al. 2004)."""


@dataclass(frozen=True)
class OneStepRun:
    """A one-step network to train.

    Attributes:
        network: shape, seed, schedule, crops, and where its weights start.
        sigma: share of noise that it begins with.
    """

    network: NetworkRun
    sigma: float


def train_one_step(
    samples: Samples,
    vae: AutoencoderKL,
    out: Path,
    run: OneStepRun,
    *,
    device: torch.device,
    minutes: float = float("inf"),
) -> Training:
    """Train; returns the training as it stands.

    Args:
        samples: on ``device``.
        vae: the trained autoencoder, frozen, on ``device``.
        out: folder for the resumable state.
        run: what to train.
        device: where.
        minutes: wall time after which to stop, to be continued later.
    """
    network = new_network(run.network.config, run.network.seed)
    if run.network.start is not None:
        load_exported(network, run.network.start)
    network.to(device)
    training = Training(
        network,
        network_optimizers(run.network.optimizer, network, network.transformer_blocks),
        run.network.schedule,
        Averages(network, AVERAGE_DECAYS),
        out / "network.pt",
        save_every=run.network.save_every,
        graphs=device.type == "cuda",
    )
    table = prompt_table(run.network.config, run.network.seed).to(device)
    if device.type == "cuda":
        compile_blocks(network)

    def batch_of(step: int) -> tuple[Tensor, ...]:
        size, turn = run.network.sizes.at(step)
        pairs = samples.batch(size, run.network.sizes.count(size), turn)
        positions = shifted_positions(network.pos_embed, pairs.target.shape[-1])
        return pairs.target, pairs.control, pairs.prompt, positions

    def loss_of(target: Tensor, control: Tensor, prompt: Tensor, positions: Tensor) -> Tensor:
        with position_table(network.pos_embed, positions):
            pairs = Pairs(target, control, prompt)
            found = restore(network, pairs, table, run.sigma)
        return F.mse_loss(found, target) + PICTURE_WEIGHT * decoded_loss(vae, found, target)

    training.run(batch_of, loss_of, minutes=minutes)
    return training


def restore(network: torch.nn.Module, pairs: Pairs, table: PromptTable, sigma: float) -> Tensor:
    """The latents [B, C, h, w] that one evaluation makes of the control latents, in float32."""
    noisy = torch.lerp(pairs.control, torch.randn_like(pairs.control), sigma)
    timestep = torch.full((len(noisy),), sigma * TIMESTEPS, device=noisy.device)
    with autocast(noisy.device):
        velocity = network(
            noisy,
            pairs.control,
            table.embeds[pairs.prompt],
            table.pooled[pairs.prompt],
            timestep,
        )
    return noisy - sigma * velocity.float()


def decoded_loss(vae: AutoencoderKL, found: Tensor, target: Tensor) -> Tensor:
    """Error of some of the decoded pictures of two batches of scaled latents [B, C, h, w]."""
    count = max(1, round(PICTURES * len(found)))
    with torch.no_grad():
        wanted = _decoded(vae, target[:count])
    return picture_loss(_decoded(vae, found[:count]), wanted)


def _decoded(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] in about 0 ... 1."""
    unscaled = latents / vae.config.scaling_factor + vae.config.shift_factor
    with autocast(latents.device):
        pixels: Tensor = vae.decode(unscaled).sample
    return pixels.float() / 2 + 0.5


def picture_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Absolute error, error of gradients, and structure (1 - SSIM), of pictures [B, 3, H, W]."""
    gradients = sum(F.l1_loss(found.diff(dim=d), wanted.diff(dim=d)) for d in (2, 3))
    return (
        F.l1_loss(found, wanted)
        + GRADIENT_WEIGHT * gradients
        + STRUCTURE_WEIGHT * (1 - structural_similarity(found, wanted))
    )


def structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Mean SSIM of two batches of pictures [B, C, H, W] in 0 ... 1, in square windows."""
    mean1, mean2 = _window_mean(first), _window_mean(second)
    variance1 = _window_mean(first.square()) - mean1.square()
    variance2 = _window_mean(second.square()) - mean2.square()
    covariance = _window_mean(first * second) - mean1 * mean2
    c1, c2 = STABILITY
    brightness = (2 * mean1 * mean2 + c1) / (mean1.square() + mean2.square() + c1)
    structure = (2 * covariance + c2) / (variance1 + variance2 + c2)
    return (brightness * structure).mean()


def _window_mean(pictures: Tensor) -> Tensor:
    return F.avg_pool2d(pictures, WINDOW, stride=1)
