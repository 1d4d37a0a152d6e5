"""Which layers a smoothing vector is worth its bytes for (ours).

A vector takes 32 bits of every input channel: per weight 0.02 bits where there are 1,536 outputs,
0.3 where there are 96. They count in the budget of weight bits. So layers are smoothed where the
error that it saves, per bit that it stores, is at least what the next bit of a weight would save.

Rounding to nearest and quantized activations gain by it alike. GPTQ gains next to nothing: how
uneven inputs are is what it goes by already. So with GPTQ weights' errors count as without.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, fsum

from planner.allocate.error_shares import kappa
from planner.allocate.sensitivity import (
    activation_costs,
    sensitive_activation_bits,
    weight_costs,
)
from planner.allocate.table_share import VECTOR_BITS, TableShare
from planner.allocate.vasmp import LayerStatistics
from planner.allocate.weight_bits import weight_bits
from planner.settings import BuildSettings
from schemas.sensitivity import SensitivityMap


@dataclass(frozen=True)
class Balance:
    """What is known of the smoothing of a network's layers before they are quantized.

    Attributes:
        owners: layer -> the layer whose input it shares. Such layers are smoothed together, so that
            their input is prepared once.
        inputs: layer -> input channels.
        remaining: layer -> squared error with smoothing over that without, 0 ... 1.
    """

    owners: Mapping[str, str]
    inputs: Mapping[str, int]
    remaining: Mapping[str, float]

    def stored_bits(self, names: Sequence[str]) -> int:
        """Bits of the vectors of some layers."""
        return VECTOR_BITS * sum(self.inputs[name] for name in names)


def with_smoothing(
    statistics: Sequence[LayerStatistics], balance: Balance, smoothed: Collection[str]
) -> list[LayerStatistics]:
    """``statistics`` whose costs are those of a network with some layers smoothed.

    Their variances, that is, are as much smaller as errors are predicted to be: the input's scale
    being kept, costs are in proportion to them.
    """
    return [
        replace(layer, variance=layer.variance * balance.remaining[layer.name])
        if layer.name in smoothed
        else layer
        for layer in statistics
    ]


def layers_to_smooth(
    statistics: Sequence[LayerStatistics],
    balance: Balance,
    settings: BuildSettings,
    sensitivity: SensitivityMap,
    table: TableShare,
) -> frozenset[str]:
    """Choose the layers that are smoothed.

    Args:
        statistics: of all layers' residuals, not smoothed.
        balance: of these layers.
        settings: target and bounds.
        sensitivity: has every layer.
        table: what a table of modulations takes of the budget.

    Raises:
        UsageError: the target lies outside the bounds, or the table takes all of it.
    """
    errors, price = _reducible_errors_and_price(statistics, settings, sensitivity, table)
    groups: dict[str, list[str]] = {}
    for layer in statistics:
        groups.setdefault(balance.owners[layer.name], []).append(layer.name)
    saved = {
        owner: fsum(errors[name] * (1 - balance.remaining[name]) for name in names)
        for owner, names in groups.items()
    }
    stored = {owner: balance.stored_bits(names) for owner, names in groups.items()}
    weights = sum(layer.parameters for layer in statistics)
    mean = table.mean_of_rest(settings.target.weight_bits, weights)
    room = floor((mean - settings.minimum_bits) * weights)
    chosen: set[str] = set()
    for owner in sorted(groups, key=lambda owner: -saved[owner] / stored[owner]):
        if saved[owner] > price * stored[owner] and stored[owner] <= room:
            room -= stored[owner]
            chosen.update(groups[owner])
    return frozenset(chosen)


def _reducible_errors_and_price(
    statistics: Sequence[LayerStatistics],
    settings: BuildSettings,
    sensitivity: SensitivityMap,
    table: TableShare,
) -> tuple[dict[str, float], float]:
    """Of every layer the error that smoothing lowers, and what the next stored bit would remove."""
    bits = weight_bits(statistics, settings, sensitivity, table=table)
    of_weights = weight_costs(statistics, sensitivity)
    of_activations = activation_costs(statistics, sensitivity)
    if settings.goes_by_sensitivity_over_steps:
        widths = sensitive_activation_bits(of_activations, settings.target.activation_bits)
    else:
        same = (int(settings.target.activation_bits),) * len(of_activations.timesteps)
        widths = dict.fromkeys(bits, same)
    errors = {
        name: fsum(
            at_step * kappa(width) for at_step, width in zip(at_steps, widths[name], strict=True)
        )
        for name, at_steps in of_activations.layers.items()
    }
    if not settings.rounds_by_moments:
        errors = {name: of_weights[name] * kappa(bits[name]) + e for name, e in errors.items()}
    price = max(
        (
            of_weights[layer.name]
            * (kappa(bits[layer.name]) - kappa(bits[layer.name] + 1))
            / layer.parameters
            for layer in statistics
            if bits[layer.name] < settings.maximum_bits
        ),
        default=0.0,
    )
    return errors, price
