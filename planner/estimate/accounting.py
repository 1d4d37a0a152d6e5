"""What a quantized network costs in parameters, operations and bytes (method, Sec. 6).

Two ways of counting stand side by side and must not be mixed:

*Paper convention*, which reproduces the figures that Q-DiT4SR prints. Parameters are fp32
equivalents (a 4-bit weight is an eighth of a parameter). Operations are scaled by
``weight bits * activation bits`` over 32 * 32, and the low-rank branch is counted as if it too ran
at the low width. "FLOPs" are the same products over 16 * 16, for one forward pass.

*True figures*. Operations scaled in the same way, but the factor branch at the 16 x 16 bits it
runs in, and beside the linears the products inside attention, which the paper leaves out: queries
with keys at 16 x 16 bits, probabilities with values at the probabilities' bits x 16. True bytes are
counted in `planner.estimate.stored_bytes`.

Linears are the block linears, by the paper's token rules (`Family.tokens_through`): one pass per
step although guidance takes two, and layers included that the forward pass computes in vain or not
at all. Bytes, in contrast, leave inactive tensors out. A layer that the user keeps in 16 bits
counts as full precision in the paper's convention, like everything else that is not quantized, and
as 16 x 16 bits truly. Neither counts embeddings, norms, convolutions and the output layer.

Everything follows from the configuration; the published numbers are in the tests, not here.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod

from artifacts.family import Architecture, AttentionWork

FULL_PRECISION_BITS = 32
"""Width of a full-precision weight or activation in the paper's parameters and operations."""
HALF_PRECISION_BITS = 16
"""Width of the factor branch, kept layers and attention, and the unit of the paper's "FLOPs"."""


@dataclass(frozen=True)
class NetworkSize:
    """Parameters of a network; the position table, a buffer, is not among them.

    Attributes:
        parameters: all of them.
        linears: number of block linears, the layers that get quantized.
        linear_parameters: weights of the block linears, without biases.
        linear_sides: sum of out_features + in_features; what one rank of factors costs.
    """

    parameters: int
    linears: int
    linear_parameters: int
    linear_sides: int

    @property
    def other_parameters(self) -> int:
        """What is never quantized: embeddings, norms, biases, convolutions, output layers."""
        return self.parameters - self.linear_parameters


def network_size(architecture: Architecture, kept: Collection[str] = ()) -> NetworkSize:
    """Count the parameters of a network, active or not.

    Args:
        architecture: the network.
        kept: names of block linears that count as any other parameter, because they do not get
            quantized.
    """
    linears = [shape for name, shape in architecture.quantizable.items() if name not in kept]
    return NetworkSize(
        parameters=sum(prod(shape) for shape in architecture.parameter_shapes.values()),
        linears=len(linears),
        linear_parameters=sum(shape.out_features * shape.in_features for shape in linears),
        linear_sides=sum(shape.out_features + shape.in_features for shape in linears),
    )


def paper_parameters(size: NetworkSize, weight_bits: float, rank: int) -> float:
    """fp32-equivalent parameters: rest + N * bits / 32 + rank * sum(out + in).

    Args:
        size: the network.
        weight_bits: mean bits of a block linear's weight; 32 for full precision.
        rank: r_G + r_L, 0 without factors.
    """
    quantized = size.linear_parameters * weight_bits / FULL_PRECISION_BITS
    return size.other_parameters + quantized + rank * size.linear_sides


def layer_macs(architecture: Architecture, streams: Mapping[str, int]) -> dict[str, int]:
    """Multiply-accumulates of every block linear in one forward pass.

    Args:
        architecture: the network.
        streams: tokens in every stream.
    """
    return {
        name: architecture.family.tokens_through(name, streams)
        * shape.out_features
        * shape.in_features
        for name, shape in architecture.quantizable.items()
    }


@dataclass(frozen=True)
class NetworkWork:
    """Multiply-accumulates of one forward pass through block linears.

    Attributes:
        dense: of the layers themselves.
        per_rank: of one rank of factors beside every layer.
    """

    dense: int
    per_rank: int


def network_work(
    architecture: Architecture, streams: Mapping[str, int], kept: Collection[str] = ()
) -> NetworkWork:
    """Count one forward pass with so many tokens in its streams, without the layers in ``kept``."""
    macs = layer_macs(architecture, streams)
    shapes = {n: shape for n, shape in architecture.quantizable.items() if n not in kept}
    return NetworkWork(
        dense=sum(macs[name] for name in shapes),
        per_rank=sum(
            architecture.family.tokens_through(name, streams)
            * (shape.out_features + shape.in_features)
            for name, shape in shapes.items()
        ),
    )


def _operations(bit_products: float, steps: int) -> float:
    """Scale ``MACs * bits * bits`` to full-precision operations; 2 operations are one MAC."""
    return 2 * steps * bit_products / FULL_PRECISION_BITS**2


def full_precision_operations(work: NetworkWork, *, steps: int) -> float:
    """Operations of ``steps`` forward passes of the unquantized network."""
    return _operations(work.dense * FULL_PRECISION_BITS**2, steps)


def paper_operations(
    work: NetworkWork,
    *,
    weight_bits: float,
    activation_bits: float,
    rank: int,
    steps: int,
    kept_macs: int = 0,
) -> float:
    """The paper's "Ops": every product, those of the factors too, at weight x activation bits.

    Args:
        work: of the quantized layers.
        weight_bits: mean bits of a weight.
        activation_bits: mean bits of an activation.
        rank: r_G + r_L, 0 without factors.
        steps: forward passes.
        kept_macs: multiply-accumulates of kept layers in one pass.
    """
    macs = work.dense + rank * work.per_rank
    kept = kept_macs * FULL_PRECISION_BITS**2
    return _operations(macs * weight_bits * activation_bits + kept, steps)


def paper_flops(
    work: NetworkWork,
    *,
    weight_bits: float,
    activation_bits: float,
    rank: int,
    kept_macs: int = 0,
) -> float:
    """The paper's "FLOPs" of one forward pass: MACs scaled by bits x bits over 16 x 16.

    Arguments as in `paper_operations`.
    """
    macs = work.dense + rank * work.per_rank
    kept = kept_macs * FULL_PRECISION_BITS**2
    return (macs * weight_bits * activation_bits + kept) / HALF_PRECISION_BITS**2


def true_operations(
    work: NetworkWork,
    *,
    weight_bits: float,
    activation_bits: float,
    rank: int,
    steps: int,
    kept_macs: int = 0,
) -> float:
    """Bit operations of the linears, in the unit of ``paper_operations``.

    Factors and kept layers count at 16 x 16 bits.

    Arguments as in `paper_operations`.
    """
    dense = work.dense * weight_bits * activation_bits
    in_half_precision = rank * work.per_rank + kept_macs
    return _operations(dense + in_half_precision * HALF_PRECISION_BITS**2, steps)


def attention_operations(
    work: AttentionWork,
    *,
    steps: int,
    bits: int = HALF_PRECISION_BITS,
    probability_bits: int = HALF_PRECISION_BITS,
) -> float:
    """Bit operations inside attention, in the unit of ``paper_operations``.

    Args:
        work: of one forward pass.
        steps: forward passes.
        bits: of queries, keys and values; 32 in full precision.
        probability_bits: of the softmax's results.
    """
    return _operations(work.scores * bits**2 + work.values * bits * probability_bits, steps)
