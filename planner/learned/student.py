"""A pack's network with layers that learn, in groups: one for each of its blocks."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from artifacts.checkpoint.reader import Checkpoint
from artifacts.pack.reader import Pack
from planner.learned.linear import LearnedLinear, LearnedPart
from runtime.load import network_from_pack
from runtime.network.family import LatentNetwork
from runtime.sampling.bit_schedule import BitSchedule


@dataclass(frozen=True, eq=False)
class Student:
    """A network whose quantized layers learn.

    Attributes:
        network: with `LearnedLinear` in the places of quantized layers.
        layers: those, in network order.
        groups: the same by block; layers before the first block are the first's, layers after the
            last are the last's.
        bits_at: activation bits of every layer at a timestep.
    """

    network: LatentNetwork
    layers: Sequence[LearnedLinear]
    groups: Sequence[Sequence[LearnedLinear]]
    bits_at: BitSchedule

    def activate(self, groups: Collection[int]) -> None:
        """Quantize these groups, and no other."""
        for index, layers in enumerate(self.groups):
            for layer in layers:
                layer.active = index in groups


def make_student(
    pack: Pack,
    checkpoint: Checkpoint,
    device: torch.device,
    *,
    parts: Collection[LearnedPart],
    update_rank: int,
    seed: int,
) -> Student:
    """The network of ``pack``, ready to learn.

    Args:
        pack: where it starts.
        checkpoint: its source, which has the weights.
        device: where it learns.
        parts: what is learned in every layer.
        update_rank: of the update inside the rounding.
        seed: of its start.

    Raises:
        PackError: the pack is damaged.
        CheckpointError: a tensor is damaged.
    """
    network = network_from_pack(pack, device=device, dtype=torch.float32, backend="reference")
    layers = []
    for name in pack.layer_names:
        bias = f"{name}.bias"
        layer = LearnedLinear(
            pack.layer(name),
            checkpoint.tensor(f"{name}.weight"),
            checkpoint.tensor(bias) if bias in checkpoint else None,
            pack.manifest.quantizer.activation_scale,
            parts=parts,
            update_rank=update_rank,
            seed=seed,
        ).to(device)
        network.set_submodule(name, layer)
        layers.append(layer)
    return Student(network, layers, _by_block(network, layers), BitSchedule(pack.bit_grid))


def _by_block(network: LatentNetwork, layers: Sequence[LearnedLinear]) -> list[list[LearnedLinear]]:
    blocks = {id(block): index for index, block in enumerate(network.recomputable)}
    groups: list[list[LearnedLinear]] = [[] for _ in range(max(1, len(blocks)))]
    wanted, current = {id(layer) for layer in layers}, 0
    # Depth first, as the network was put together: a block's modules follow it.
    for module in network.modules():
        current = blocks.get(id(module), current)
        if id(module) in wanted:
            groups[current].append(module)  # type: ignore[arg-type]
    return groups


@contextmanager
def output_of(module: nn.Module) -> Iterator[list[tuple[Tensor, ...]]]:
    """What ``module`` returns while the context is open, call by call."""
    seen: list[tuple[Tensor, ...]] = []

    def keep(_module: nn.Module, _arguments: object, output: object) -> None:
        parts = output if isinstance(output, tuple) else (output,)
        seen.append(tuple(part for part in parts if isinstance(part, Tensor)))

    handle = module.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()
