"""Stage two: the transformer, by flow matching on latents of the trained autoencoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.embeddings import PatchEmbed
from torch import Tensor, nn

from artifacts.dit4sr.config import TransformerConfig
from runtime.dit4sr.network import DiT4SR
from training.averages import Averages
from training.crops import Crops
from training.device import autocast
from training.loop import Training
from training.optimizers import OptimizerName, network_optimizers
from training.pairs import Pairs, PairShards, PicturesAhead
from training.prompts import PromptTable
from training.schedule import WarmupStableDecay

SHIFT = 3.0
AVERAGE_DECAYS = (0.998, 0.9995, 0.9998)
TIMESTEPS = 1000
TILE_PATCHES = 24
"""Side of the largest crops, 192 px, in patches."""


@dataclass(frozen=True)
class Sizes:
    """Crops by step: small ones are cheap and come first, large ones are what is used.

    Attributes:
        small_steps: steps on 64-px crops alone; afterwards every second step has 128-px crops and
            every eighth 192-px ones.
        pixels: image pixels in a batch, whatever its crops.
    """

    small_steps: int = 3000
    pixels: int = 16 * 64 * 64

    def at(self, step: int) -> tuple[int, int]:
        """Crop side in pixels at ``step``, and which batch of that size it is."""
        after = step - self.small_steps
        if after < 0:
            return 64, step
        if after % 8 == 7:
            return 192, after // 8
        if after % 2:
            # Three of eight steps: the second, fourth and sixth.
            return 128, after // 8 * 3 + after % 8 // 2
        return 64, self.small_steps + after // 2


@dataclass(frozen=True)
class NetworkRun:
    """A network to train.

    Attributes:
        config: its shape.
        seed: of weights, prompts, noise and timesteps.
        steps: optimizer steps; the run can be prolonged later.
        decay: the last steps, with a falling learning rate.
        sizes: crops by step.
        uses: how often a sample is used.
        workers: processes that prepare pictures; 0 for none.
        optimizer: by name.
    """

    config: TransformerConfig
    seed: int
    steps: int
    decay: int
    sizes: Sizes
    uses: int = 4
    workers: int = 0
    optimizer: OptimizerName = "adamw"


def new_network(config: TransformerConfig, seed: int) -> DiT4SR:
    """An untrained network; every residual branch starts closed (AdaLN-zero, Peebles and Xie)."""
    torch.manual_seed(seed)
    network = DiT4SR(config, "q")
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d) and module.groups > 1:
            nn.init.normal_(module.weight, std=0.1)
    for name, parameter in network.named_parameters():
        modulation = ".norm1" in name or name.startswith(("norm_out.", "proj_out."))
        if modulation and name.endswith("weight"):
            nn.init.zeros_(parameter)
    return network


def prompt_table(config: TransformerConfig, seed: int) -> PromptTable:
    """The prompts of a network."""
    return PromptTable.draw(
        seed, width=config.joint_attention_dim, pooled_width=config.pooled_projection_dim
    )


def train_network(
    vae: AutoencoderKL,
    crops: Crops,
    out: Path,
    run: NetworkRun,
    *,
    device: torch.device,
    minutes: float = float("inf"),
) -> Training:
    """Train the network on ``v = noise - target``; returns the training as it stands.

    Args:
        vae: trained autoencoder, on ``device``.
        crops: of training photos.
        out: folder for the resumable state and the prepared samples.
        run: what to train.
        device: where.
        minutes: wall time after which to stop, to be continued later.
    """
    network = new_network(run.config, run.seed).to(device)
    training = new_training(network, run, out)
    table = prompt_table(run.config, run.seed).to(device)
    ahead = PicturesAhead(crops, run.workers) if run.workers else None
    shards = {
        size: PairShards(crops, vae, size, uses=run.uses, folder=out / "pairs", ahead=ahead)
        for size in (64, 128, 192)
    }

    def loss_of(step: int) -> Tensor:
        size, turn = run.sizes.at(step)
        pairs = shards[size].batch(max(1, run.sizes.pixels // size**2), turn)
        with shifted_positions(network.pos_embed, pairs.target.shape[-1]):
            return flow_matching_loss(network, pairs, table)

    training.run(loss_of, minutes=minutes)
    if ahead is not None:
        ahead.close()
    return training


def new_training(network: DiT4SR, run: NetworkRun, out: Path) -> Training:
    """The training of ``network``, at its start."""
    return Training(
        network,
        network_optimizers(run.optimizer, network, network.transformer_blocks),
        WarmupStableDecay(run.steps, decay=run.decay),
        Averages(network, AVERAGE_DECAYS),
        out / "network.pt",
    )


@contextmanager
def shifted_positions(embedding: PatchEmbed, latent: int) -> Iterator[None]:
    """Show a square crop, ``latent`` pixels wide, at a random place of a tile.

    The network cuts the middle out of its position table. A small crop would only ever know the
    few positions there, so the table is turned until other ones lie in the middle.
    """
    table, side = embedding.pos_embed, embedding.pos_embed_max_size
    spare = max(0, TILE_PATCHES - latent // embedding.patch_size)
    down, right = (int(n) - spare // 2 for n in torch.randint(spare + 1, (2,)))
    grid = table.unflatten(1, (side, side)).roll((down, right), dims=(1, 2))
    embedding.pos_embed = grid.flatten(1, 2)
    try:
        yield
    finally:
        embedding.pos_embed = table


def flow_matching_loss(network: nn.Module, pairs: Pairs, table: PromptTable) -> Tensor:
    """Squared error of the velocity at random timesteps, shifted as the sampler's are."""
    u = torch.rand(len(pairs.target), device=pairs.target.device)
    sigma = SHIFT * u / (1 + (SHIFT - 1) * u)
    noise = torch.randn_like(pairs.target)
    noisy = torch.lerp(pairs.target, noise, sigma[:, None, None, None])
    with autocast(pairs.target.device):
        velocity = network(
            noisy,
            pairs.control,
            table.embeds[pairs.prompt],
            table.pooled[pairs.prompt],
            sigma * TIMESTEPS,
        )
    return F.mse_loss(velocity.float(), noise - pairs.target)
