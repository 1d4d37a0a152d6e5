"""A network that restores in one evaluation, retrained from one that takes many steps.

It begins with the control latent under a share ``sigma`` of noise and takes the whole way to the
image at once: ``x = z - sigma v(z, sigma)`` with ``z = (1 - sigma) control + sigma noise``. The
less noise, the less an error of the network is multiplied (QArtSR, arXiv 2503.05584, section on
timestep retraining); how much is best is measured, not derived.

With one evaluation there is no distribution to draw from, so errors of latents and of pictures are
minimised, as in regression: the results are smoother than those of many steps.
"""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from training.device import autocast
from training.network import TIMESTEPS
from training.pairs import Pairs
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


def one_step_loss(
    vae: AutoencoderKL, sigma: float, network: nn.Module, pairs: Pairs, table: PromptTable
) -> Tensor:
    """Error of the latents that one evaluation gives, and of some of their pictures.

    Args:
        vae: the trained autoencoder, frozen, on the device of the samples.
        sigma: share of noise that the network begins with.
        network: maps as `runtime.network.family.LatentNetwork` does.
        pairs: samples.
        table: the prompts that they name.
    """
    found = restore(network, pairs, table, sigma)
    return F.mse_loss(found, pairs.target) + PICTURE_WEIGHT * decoded_loss(vae, found, pairs.target)


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
