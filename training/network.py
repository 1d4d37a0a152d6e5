"""Stage two: the transformer, by flow matching on latents of the trained autoencoder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from artifacts.dit4sr.config import TransformerConfig
from runtime.dit4sr.network import DiT4SR
from training.loop import CosineTraining, Crops

CONFIG = TransformerConfig(
    sample_size=32,
    num_layers=6,
    num_attention_heads=6,
    attention_head_dim=32,
    joint_attention_dim=64,
    caption_projection_dim=192,
    pooled_projection_dim=64,
    pos_embed_max_size=48,
    dual_attention_layers=(0, 1, 2),
)
PROMPT_TOKENS = 4
SHIFT = 3.0
NEGATIVE_SHARE = 0.1
CHUNK = 32


@dataclass(frozen=True)
class Phase:
    """A stretch of training at one crop size: 64-px crops are cheap, 128-px ones are what is used.

    Attributes:
        crop_px: side of the crops.
        batch: crops per step.
        steps: optimizer steps.
        cached_crops: crops encoded beforehand and drawn from at random.
    """

    crop_px: int
    batch: int
    steps: int
    cached_crops: int


def embeddings(seed: int) -> dict[str, Tensor]:
    """Two fixed random prompts in place of encoded text, under the names a pack gives them."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).bfloat16().float()

    return {
        f"{side}.{part}": normal(*shape)
        for side in ("positive", "negative")
        for part, shape in (
            ("embeds", (PROMPT_TOKENS, CONFIG.joint_attention_dim)),
            ("pooled", (CONFIG.pooled_projection_dim,)),
        )
    }


def new_network(seed: int) -> DiT4SR:
    """An untrained network; every residual branch starts closed (AdaLN-zero, Peebles and Xie)."""
    torch.manual_seed(seed)
    network = DiT4SR(CONFIG, "q")
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d) and module.groups > 1:
            nn.init.normal_(module.weight, std=0.1)
            nn.init.zeros_(module.bias)
    for block in network.transformer_blocks:
        for modulation in (block.norm1, block.norm1_context):
            nn.init.zeros_(modulation.linear.weight)
    for layer in (network.norm_out.linear, network.proj_out):
        nn.init.zeros_(layer.weight)
    return network


@torch.no_grad()
def encode(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Images [B, 3, H, W] in 0 ... 1 -> scaled latents [B, 16, H/4, W/4] (posterior mean)."""
    with torch.autocast("cpu", torch.bfloat16):
        mean = vae.encode(images * 2 - 1).latent_dist.mean.float()
    return (mean - vae.config.shift_factor) * vae.config.scaling_factor


def _cache(vae: AutoencoderKL, crops: Crops, phase: Phase) -> tuple[Tensor, Tensor]:
    """Latents of ``phase.cached_crops`` sharp crops and of their degraded copies, in bfloat16."""

    def chunks() -> Iterator[tuple[Tensor, Tensor]]:
        for index in range(phase.cached_crops // CHUNK):
            sharp, degraded = crops.pairs(CHUNK, phase.crop_px, index)
            yield encode(vae, sharp).bfloat16(), encode(vae, degraded).bfloat16()

    sharp, degraded = zip(*chunks(), strict=True)
    return torch.cat(sharp), torch.cat(degraded)


def train_network(
    vae: AutoencoderKL, crops: Crops, out: Path, *, phases: list[Phase], seed: int
) -> DiT4SR:
    """Train the network on ``v = noise - sharp`` with the timestep distribution of shift 3.

    The negative prompt is what guidance pushes away from, so its samples (a tenth of each batch's
    draws) have a target half-way between the sharp latent and the degraded one.

    Args:
        vae: trained autoencoder.
        crops: source of training crops.
        out: folder for the resumable state.
        phases: crop sizes and steps, in order; one cosine schedule spans them all.
        seed: seed of weights, prompts, noise and timesteps.
    """
    network = new_network(seed)
    prompts = embeddings(seed)
    table = {
        part: torch.stack([prompts[f"negative.{part}"], prompts[f"positive.{part}"]])
        for part in ("embeds", "pooled")
    }
    bounds = torch.tensor([phase.steps for phase in phases]).cumsum(0).tolist()
    caches: dict[int, tuple[Tensor, Tensor]] = {}

    def loss_of(step: int) -> Tensor:
        index = next(i for i, bound in enumerate(bounds) if step < bound)
        if index not in caches:
            caches.clear()
            caches[index] = _cache(vae, crops, phases[index])
        sharp, degraded = caches[index]
        batch = phases[index].batch
        chosen = torch.randint(sharp.shape[0], (batch,))
        target, control = sharp[chosen].float(), degraded[chosen].float()
        positive = (torch.rand(batch) >= NEGATIVE_SHARE).long()
        negative = positive[:, None, None, None] == 0
        target = torch.where(negative, (target + control) / 2, target)

        u = torch.rand(batch)
        sigma = SHIFT * u / (1 + (SHIFT - 1) * u)
        noise = torch.randn_like(target)
        noisy = torch.lerp(target, noise, sigma[:, None, None, None])
        with torch.autocast("cpu", torch.bfloat16):
            velocity = network(
                noisy, control, table["embeds"][positive], table["pooled"][positive], sigma * 1000
            )
        return F.mse_loss(velocity.float(), noise - target)

    training = CosineTraining(
        network, out / "network.pt", steps=bounds[-1], learning_rate=1.5e-3, ema_decay=None
    )
    training.run(loss_of)
    return network
