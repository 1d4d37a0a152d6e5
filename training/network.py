"""Stage two: the transformer, by flow matching on latents of the trained autoencoder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.position_table import sincos_table
from runtime.dit4sr.network import DiT4SR
from runtime.dit4sr.patches import PatchEmbedding
from training.averages import Averages
from training.device import autocast
from training.loop import SAVE_EVERY, Training
from training.optimizers import OptimizerName, network_optimizers
from training.pairs import Pairs, Samples
from training.prompts import PromptTable
from training.schedule import Schedule

SHIFT = 3.0
AVERAGE_DECAYS = (0.998, 0.9995, 0.9998)
TIMESTEPS = 1000
TILE_PATCHES = 24
"""Side of the largest crops, 192 px, in patches."""


Loss = Callable[[nn.Module, Pairs, PromptTable], Tensor]
"""Of a network on samples, with the prompts that they name."""


@dataclass(frozen=True)
class Sizes:
    """Crops by step: small ones are cheap and come first, large ones are what is used.

    Attributes:
        small_steps: steps on the smallest crops alone.
        cycle: sides of the crops afterwards, in pixels, again and again.
        pixels: image pixels in a batch, whatever its crops.
    """

    small_steps: int = 3000
    cycle: tuple[int, ...] = (64, 128, 64, 128, 64, 128, 64, 192)
    pixels: int = 16 * 64 * 64

    @property
    def smallest(self) -> int:
        """Side of the smallest crops in pixels."""
        return min(self.cycle)

    def at(self, step: int) -> tuple[int, int]:
        """Crop side in pixels at ``step``, and which batch of that size it is."""
        if step < self.small_steps:
            return self.smallest, step
        rounds, place = divmod(step - self.small_steps, len(self.cycle))
        size = self.cycle[place]
        before = self.small_steps if size == self.smallest else 0
        turn = before + rounds * self.cycle.count(size) + self.cycle[:place].count(size)
        return size, turn

    def count(self, size_px: int) -> int:
        """Crops of ``size_px`` in a batch."""
        return max(1, self.pixels // size_px**2)


@dataclass(frozen=True)
class NetworkRun:
    """A network to train.

    Attributes:
        config: its shape.
        seed: of weights, prompts, noise and timesteps.
        schedule: of the learning rate; the run can be prolonged later.
        sizes: crops by step.
        optimizer: by name.
        save_every: steps between two states.
        start: exported folder whose weights the run begins with; None for random ones.
    """

    config: TransformerConfig
    seed: int
    schedule: Schedule
    sizes: Sizes
    optimizer: OptimizerName = "adamw"
    save_every: int = SAVE_EVERY
    start: Path | None = None


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


def load_exported(network: DiT4SR, folder: Path) -> None:
    """Take over the weights of an exported model's ``folder``.

    Raises:
        RuntimeError: they are of another shape.
    """
    weights = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    network.load_state_dict(weights)


def prompt_table(config: TransformerConfig, seed: int) -> PromptTable:
    """The prompts of a network."""
    return PromptTable.draw(
        seed, width=config.joint_attention_dim, pooled_width=config.pooled_projection_dim
    )


def train_network(
    samples: Samples,
    out: Path,
    run: NetworkRun,
    *,
    device: torch.device,
    minutes: float = float("inf"),
    loss: Loss | None = None,
) -> Training:
    """Train the network; returns the training as it stands.

    Args:
        samples: on ``device``.
        out: folder for the resumable state.
        run: what to train.
        loss: what to minimise; None for that of flow matching, ``v = noise - target``.
        device: where.
        minutes: wall time after which to stop, to be continued later.
    """
    network = new_network(run.config, run.seed)
    if run.start is not None:
        load_exported(network, run.start)
    network.to(device)
    training = new_training(network, run, out)
    table = prompt_table(run.config, run.seed).to(device)
    whole = sincos_table(run.config).to(device)
    if device.type == "cuda":
        compile_blocks(network)

    def batch_of(step: int) -> tuple[Tensor, ...]:
        size, turn = run.sizes.at(step)
        pairs = samples.batch(size, run.sizes.count(size), turn)
        positions = shifted_positions(whole, pairs.target.shape[-1], run.config.patch_size)
        return pairs.target, pairs.control, pairs.prompt, positions

    def loss_of(target: Tensor, control: Tensor, prompt: Tensor, positions: Tensor) -> Tensor:
        with position_table(network.pos_embed, positions):
            return (loss or flow_matching_loss)(network, Pairs(target, control, prompt), table)

    training.run(batch_of, loss_of, minutes=minutes)
    return training


def compile_blocks(network: nn.Module) -> None:
    """Compile block by block: on a GPU what lies between the products costs as much as they do.

    Blocks of one kind share their code, which the whole network at once would not.
    """
    # Three kinds of blocks times the sizes of crops are more than the usual limit of 8.
    torch._dynamo.config.recompile_limit = 32
    for block in network.get_submodule("transformer_blocks").children():
        block.compile(dynamic=False)


def new_training(network: DiT4SR, run: NetworkRun, out: Path) -> Training:
    """The training of ``network``, at its start."""
    return Training(
        network,
        network_optimizers(run.optimizer, network, network.transformer_blocks),
        run.schedule,
        Averages(network, AVERAGE_DECAYS),
        out / "network.pt",
        save_every=run.save_every,
        graphs=next(network.parameters()).is_cuda,
    )


def shifted_positions(whole: Tensor, latent: int, patch_size: int) -> Tensor:
    """The position table that shows a square crop, ``latent`` pixels wide, somewhere in a tile.

    The network cuts the middle out of its position table. A small crop would only ever know the
    few positions there, so the table is turned until other ones lie in the middle.

    Args:
        whole: the table [1, side * side, C].
        latent: side of the crop, in latent pixels.
        patch_size: of the network.
    """
    side = isqrt(whole.shape[1])
    spare = max(0, TILE_PATCHES - latent // patch_size)
    down, right = (int(n) - spare // 2 for n in torch.randint(spare + 1, (2,)))
    grid = whole.unflatten(1, (side, side))
    return grid.roll((down, right), dims=(1, 2)).flatten(1, 2)


@contextmanager
def position_table(embedding: PatchEmbedding, positions: Tensor) -> Iterator[None]:
    """Have ``embedding`` use the table ``positions`` [1, side * side, C] instead of its own."""
    table = embedding.pos_embed
    embedding.pos_embed = positions
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
