"""A pack's network with layers that learn, in groups: one for each of its blocks."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from artifacts.checkpoint.reader import Checkpoint
from artifacts.codec.bitpack import pack_codes
from artifacts.codec.quantized_weight import QuantizedWeight
from artifacts.pack.reader import Pack
from planner.learned.linear import LearnedLinear
from planner.learned.plan import LearningPlan
from planner.learned.timed_bits import TimedSchedule
from planner.weights.row_scales import quantize_weight_rows
from runtime.load import network_from_pack
from runtime.network.family import LatentNetwork
from runtime.sampling.bit_schedule import BitsAt
from schemas.errors import UsageError
from schemas.manifest import WeightScaleRule


@dataclass(frozen=True, eq=False)
class Student:
    """A network whose quantized layers learn.

    Attributes:
        network: with `LearnedLinear` in the places of quantized layers.
        layers: those, in network order.
        groups: the same by block; layers before the first block are the first's, layers after the
            last are the last's.
        bits_at: activation bits of every layer at a timestep, as `TimedBits`.
    """

    network: LatentNetwork
    layers: Sequence[LearnedLinear]
    groups: Sequence[Sequence[LearnedLinear]]
    bits_at: BitsAt

    def activate(self, groups: Collection[int]) -> None:
        """Quantize these groups, and no other."""
        for index, layers in enumerate(self.groups):
            for layer in layers:
                layer.active = index in groups

    def set_groups(self, groups: Mapping[str, int]) -> None:
        """Give every layer groups of its own size, of weights and of tokens."""
        for layer in self.layers:
            layer.group = layer.tokens.group = groups[layer.name]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """While nothing learns: every layer's weight is quantized once, not at every call."""
        try:
            with torch.no_grad():
                for layer in self.layers:
                    layer.frozen = layer.quantized()
                yield
        finally:
            for layer in self.layers:
                layer.frozen = None


def make_student(
    pack: Pack,
    checkpoint: Checkpoint,
    device: torch.device,
    plan: LearningPlan,
    smoothing: Mapping[str, Tensor] | None = None,
) -> Student:
    """The network of ``pack``, ready to learn.

    Args:
        pack: where it starts.
        checkpoint: its source, which has the weights.
        device: where it learns.
        plan: what is learned in every layer.
        smoothing: of every layer [in], where the plan balances: codes and steps are made anew.

    Raises:
        UsageError: the plan balances, and the pack has factors.
        PackError: the pack is damaged.
        CheckpointError: a tensor is damaged.
    """
    network = network_from_pack(pack, device=device, dtype=torch.float32, backend="reference")
    schedule = TimedSchedule(pack.bit_grid)
    quantizer = pack.manifest.quantizer
    layers = []
    for name in pack.layer_names:
        bias = f"{name}.bias"
        start, weight = pack.layer(name), checkpoint.tensor(f"{name}.weight")
        if smoothing is not None:
            start = _smoothed(start, weight, smoothing[name].cpu(), quantizer.weight_scale)
        layer = LearnedLinear(
            start,
            weight,
            checkpoint.tensor(bias) if bias in checkpoint else None,
            quantizer.activation_scale,
            parts=plan.all_parts,
            update_rank=plan.update_rank,
            seed=plan.seed,
            steps=schedule.steps,
        ).to(device)
        network.set_submodule(name, layer)
        layers.append(layer)
    return Student(network, layers, _by_block(network, layers), schedule)


def _smoothed(
    start: QuantizedWeight, weight: Tensor, smoothing: Tensor, rule: WeightScaleRule
) -> QuantizedWeight:
    """The layer quantized anew with another smoothing.

    Raises:
        UsageError: it has factors, which are those of the weight as it was smoothed.
    """
    if start.global_factors is not None or start.local_factors is not None:
        raise UsageError(
            "a pack with factors cannot be balanced anew", hint="start from recipe rtn or quarot"
        )
    rotated = start.rotation.apply(weight.float() * smoothing, start.signs)
    codes, scale, _ = quantize_weight_rows(rotated, start.weight_bits, rule)
    packed = pack_codes(codes, start.weight_bits)
    return replace(start, codes=packed, scale=scale, smoothing=smoothing)


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
