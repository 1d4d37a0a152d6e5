"""Bits by how much a layer's error changes the final latent (ours).

With the sensitivities of `schemas.sensitivity` and the energy ``|W_res|²`` of what the factors
leave of a layer's weight, the error of the final latent is, to first order, a sum of

    weights       s_w · |W_res|² · κ(b)          for every layer
    activations   s_a,t · |W_res|² · κ(b_t)      for every layer and step t

(activations meet the residual alone: the factors read them unquantized). Both sums are minimised by
`planner.allocate.budgets`, each under its own budget; steps and layers share that of the
activations.

A mean over weights hides work: wide feed-forward layers that all image tokens pass, paid for by
narrow ones that a few text tokens pass, cost no byte and many more operations. Where multiply-
accumulates are given, a second budget holds the means that they weight to the same number.

Of few bits the first order misjudges how far costs lie apart. So those of activations are raised to
a power below 1 (value ours).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.allocate.budgets import Budget, allocate_widths
from planner.allocate.vasmp import LayerStatistics
from schemas.sensitivity import SensitivityMap

ACTIVATION_TEMPER = 0.75
MINIMUM_ACTIVATION_BITS = 2
MAXIMUM_ACTIVATION_BITS = 8


def weight_costs(
    statistics: Sequence[LayerStatistics], sensitivity: SensitivityMap
) -> dict[str, float]:
    """Squared error of the final latent per unit of κ, of every layer's weight.

    Args:
        statistics: of the residuals.
        sensitivity: has every layer.
    """
    return {
        layer.name: sensitivity.layers[layer.name].weight * layer.variance * layer.parameters
        for layer in statistics
    }


@dataclass(frozen=True)
class ActivationCosts:
    """Squared error of the final latent per unit of κ, of activations.

    Attributes:
        timesteps: the scheduler's.
        layers: layer name -> cost at every timestep.
    """

    timesteps: tuple[float, ...]
    layers: Mapping[str, tuple[float, ...]]


def activation_costs(
    statistics: Sequence[LayerStatistics], sensitivity: SensitivityMap
) -> ActivationCosts:
    """The costs of every layer's activations; arguments as of `weight_costs`."""
    return ActivationCosts(
        sensitivity.timesteps,
        {
            layer.name: tuple(
                value * layer.variance * layer.parameters
                for value in sensitivity.layers[layer.name].activation
            )
            for layer in statistics
        },
    )


def sensitive_weight_bits(
    statistics: Sequence[LayerStatistics],
    sensitivity: SensitivityMap,
    mean_bits: float,
    *,
    minimum_bits: int,
    maximum_bits: int,
    work: Mapping[str, int] | None = None,
    mean_work_bits: float | None = None,
) -> dict[str, int]:
    """Weight bits of every layer; their parameter-weighted mean is at most ``mean_bits``.

    Args:
        statistics: of the residuals.
        sensitivity: has every layer.
        mean_bits: the budget.
        minimum_bits: fewest bits of a layer.
        maximum_bits: most bits of a layer.
        work: multiply-accumulates of every layer in a forward pass; the mean that they weight is
            then kept to as well.
        mean_work_bits: that mean; ``mean_bits`` by default.

    Raises:
        UsageError: the mean lies outside the bounds.
    """
    ordered = sorted(statistics, key=lambda layer: layer.name)
    costs = weight_costs(ordered, sensitivity)
    budgets = [Budget([layer.parameters for layer in ordered], mean_bits)]
    if work is not None:
        sizes = [max(1, work[layer.name]) for layer in ordered]
        budgets.append(Budget(sizes, mean_bits if mean_work_bits is None else mean_work_bits))
    bits = allocate_widths(
        [costs[layer.name] for layer in ordered],
        budgets,
        minimum_bits=minimum_bits,
        maximum_bits=maximum_bits,
    )
    return {layer.name: width for layer, width in zip(ordered, bits, strict=True)}


def sensitive_activation_bits(
    costs: ActivationCosts, mean_bits: float, work: Mapping[str, int] | None = None
) -> dict[str, tuple[int, ...]]:
    """Activation bits of every layer and step; their mean over both is at most ``mean_bits``.

    Args:
        costs: of all layers.
        mean_bits: the budget.
        work: as of `sensitive_weight_bits`.

    Raises:
        UsageError: the mean lies outside 2 ... 8.
    """
    names = sorted(costs.layers)
    steps = len(costs.timesteps)
    flat = [value**ACTIVATION_TEMPER for name in names for value in costs.layers[name]]
    budgets = [Budget([1] * len(flat), mean_bits)]
    if work is not None:
        sizes = [max(1, work[name]) for name in names for _ in range(steps)]
        budgets.append(Budget(sizes, mean_bits))
    bits = allocate_widths(
        flat,
        budgets,
        minimum_bits=MINIMUM_ACTIVATION_BITS,
        maximum_bits=MAXIMUM_ACTIVATION_BITS,
    )
    return {
        name: tuple(bits[index * steps : (index + 1) * steps]) for index, name in enumerate(names)
    }
