"""Parameters and operations of one combination of bits and rank, by both ways of counting."""

from dataclasses import dataclass
from typing import TypedDict

from artifacts.family import AttentionWork
from planner.estimate.accounting import (
    FULL_PRECISION_BITS,
    HALF_PRECISION_BITS,
    NetworkSize,
    NetworkWork,
    attention_operations,
    full_precision_operations,
    paper_flops,
    paper_operations,
    paper_parameters,
    true_operations,
)
from planner.target import Target

PAPER_LOCAL_RANKS = (4, 8, 16, 32)
"""The values of r_L that the paper's tables compare, all with r_G = 32."""
PAPER_GLOBAL_RANK = 32
PAPER_WEIGHT_BITS = 4
PAPER_ACTIVATION_BITS = (4, 6)


class _Bits(TypedDict):
    weight_bits: int | float
    activation_bits: int | float


class _Counted(_Bits):
    rank: int
    kept_macs: int


class _AttentionBits(TypedDict):
    bits: int
    probability_bits: int


FULL_ATTENTION: _AttentionBits = {
    "bits": FULL_PRECISION_BITS,
    "probability_bits": FULL_PRECISION_BITS,
}
UNQUANTIZED_ATTENTION: _AttentionBits = {
    "bits": HALF_PRECISION_BITS,
    "probability_bits": HALF_PRECISION_BITS,
}


@dataclass(frozen=True)
class Costs:
    """Parameters and operations of one combination of bits and rank.

    Attributes:
        weight_bits, activation_bits, rank: the combination; 32, 32, 0 is full precision.
        paper_parameters: fp32 equivalents.
        paper_operations: of all steps, with factors counted at the low width.
        paper_flops: of one forward pass, in 16-bit equivalents.
        true_operations: of the linears in all steps, in the unit of ``paper_operations``, factors
            in 16 bits.
        attention_operations: of QKᵀ and PV, in the same unit.
        total_operations: of linears and attention.
        paper_reduction, true_reduction: full-precision operations of the linears over the paper's
            and over the true ones.
        total_reduction: the same of linears and attention.
    """

    weight_bits: int | float
    activation_bits: int | float
    rank: int
    paper_parameters: float
    paper_operations: float
    paper_flops: float
    true_operations: float
    attention_operations: float
    total_operations: float
    paper_reduction: float
    true_reduction: float
    total_reduction: float


@dataclass(frozen=True)
class Counter:
    """Costs of one network and image.

    Attributes:
        size: of the network.
        work: of its quantized layers, one pass.
        attention: of its attention, one pass.
        steps: passes.
        kept_macs: of layers that stay in 16 bits, one pass.
    """

    size: NetworkSize
    work: NetworkWork
    attention: AttentionWork
    steps: int
    kept_macs: int = 0

    def at(self, target: Target, rank: int, attention_bits: _AttentionBits) -> Costs:
        """Costs with so many bits, and factors of one rank beside every layer."""
        bits: _Bits = {"weight_bits": target.weight_bits, "activation_bits": target.activation_bits}
        counted: _Counted = {**bits, "rank": rank, "kept_macs": self.kept_macs}
        steps = self.steps
        whole = NetworkWork(self.work.dense + self.kept_macs, self.work.per_rank)
        full = full_precision_operations(whole, steps=steps)
        full_attention = attention_operations(self.attention, steps=steps, **FULL_ATTENTION)
        paper = paper_operations(self.work, **counted, steps=steps)
        true = true_operations(self.work, **counted, steps=steps)
        attention = attention_operations(self.attention, steps=steps, **attention_bits)
        return Costs(
            **bits,
            rank=rank,
            paper_parameters=paper_parameters(self.size, target.weight_bits, rank),
            paper_operations=paper,
            paper_flops=paper_flops(self.work, **counted),
            true_operations=true,
            attention_operations=attention,
            total_operations=true + attention,
            paper_reduction=full / paper,
            true_reduction=full / true,
            total_reduction=(full + full_attention) / (true + attention),
        )

    def paper_ladder(self) -> dict[str, Costs]:
        """Key such as ``W4A6 r_L=8`` -> costs; ``r_L=0`` stands for no factors at all."""
        ladder = {}
        for activation_bits in PAPER_ACTIVATION_BITS:
            target = Target(PAPER_WEIGHT_BITS, activation_bits)
            for local_rank in (0, *PAPER_LOCAL_RANKS):
                rank = PAPER_GLOBAL_RANK + local_rank if local_rank else 0
                key = ladder_key(activation_bits, local_rank)
                ladder[key] = self.at(target, rank, UNQUANTIZED_ATTENTION)
        return ladder


def ladder_key(activation_bits: int, local_rank: int) -> str:
    """Key of ``Estimate.paper_ladder``."""
    return f"W{PAPER_WEIGHT_BITS}A{activation_bits} r_L={local_rank}"
