"""What is decided about every layer's weight before it is quantized: its bits, and smoothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.allocate.smoothed_layers import layers_to_smooth, with_smoothing
from planner.allocate.table_share import TableShare
from planner.allocate.vasmp import LayerStatistics
from planner.allocate.weight_bits import uniform_bits, weight_bits
from planner.build.layers import LayerMaker
from schemas.sensitivity import SensitivityMap


@dataclass(frozen=True)
class WeightDecisions:
    """How layers will be quantized.

    Attributes:
        weights: statistics of every layer that costs of weights go by; none where nothing does.
        activations: likewise of activations, which are quantized smoothed, whatever rounds weights.
        bits: layer name -> weight bits.
        smoothed: layers with a smoothing vector, of settings that balance.
    """

    weights: list[LayerStatistics]
    activations: list[LayerStatistics]
    bits: dict[str, int]
    smoothed: frozenset[str]


def decide_weights(
    maker: LayerMaker,
    names: Sequence[str],
    sensitivity: SensitivityMap | None,
    work: Mapping[str, int] | None,
    table: TableShare,
) -> WeightDecisions:
    """Measure layers, and decide by the settings of ``maker``.

    Args:
        maker: reads weights and moments.
        names: of the layers.
        sensitivity: of them, where the settings go by it.
        work: multiply-accumulates of every layer, for a budget that counts them.
        table: what a table of modulations takes of the budget.

    Raises:
        UsageError: the target cannot be reached.
        CheckpointError: a tensor is damaged.
    """
    settings = maker.settings
    activations = weights = maker.statistics(names) if settings.reads_variances else []
    smoothed: frozenset[str] = frozenset()
    vectors = 0
    if settings.balances:
        smoothed = frozenset(names)
        balance = maker.balance(names)
        if settings.pays_for_vectors and sensitivity is not None:
            smoothed = layers_to_smooth(weights, balance, settings, sensitivity, table)
            vectors = balance.stored_bits(sorted(smoothed))
        activations = with_smoothing(activations, balance, smoothed)
        if not settings.rounds_by_moments:
            weights = activations
    if settings.weight_allocation == "uniform":
        bits = uniform_bits(names, settings)
    else:
        bits = weight_bits(weights, settings, sensitivity, work, table, vectors)
    return WeightDecisions(weights, activations, bits, smoothed)
