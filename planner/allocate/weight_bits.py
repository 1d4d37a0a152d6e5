"""Weight bits of every layer, by the allocation that the settings ask for."""

from collections.abc import Iterable, Mapping, Sequence

from planner.allocate.exact import allocate_exact
from planner.allocate.sensitivity import sensitive_weight_bits
from planner.allocate.table_share import NO_TABLE, TableShare
from planner.allocate.vasmp import LayerStatistics, allocate
from planner.settings import BuildSettings
from schemas.sensitivity import SensitivityMap


def uniform_bits(names: Iterable[str], settings: BuildSettings) -> dict[str, int]:
    """The target's bits in every layer, for which no weight has to be read."""
    return dict.fromkeys(names, int(settings.target.weight_bits))


def weight_bits(
    statistics: Sequence[LayerStatistics],
    settings: BuildSettings,
    sensitivity: SensitivityMap | None = None,
    work: Mapping[str, int] | None = None,
    table: TableShare = NO_TABLE,
    beside: int = 0,
) -> dict[str, int]:
    """Layer name -> weight bits, by sensitivity or by VaSMP with the allocator asked for.

    Args:
        statistics: of all layers.
        settings: target, bounds, allocation, allocator.
        sensitivity: for an allocation that goes by it.
        work: multiply-accumulates of every layer, for a budget that counts them.
        table: what a table of modulations takes of the budget of an allocation by sensitivity, and
            gives back; VaSMP keeps the target over the layers it sees, as the paper has it.
        beside: bits of smoothing vectors, which that budget pays for as well.

    Raises:
        UsageError: the budget lies outside the bounds, or the table takes all of it.
        ValueError: the allocation goes by a sensitivity, and there is none.
    """
    bounds = {"minimum_bits": settings.minimum_bits, "maximum_bits": settings.maximum_bits}
    mean_bits = settings.target.weight_bits
    if settings.weight_allocation == "sensitivity":
        if sensitivity is None:
            raise ValueError("bits by sensitivity, without one")
        left = table.mean_of_rest(mean_bits, sum(layer.parameters for layer in statistics), beside)
        return sensitive_weight_bits(
            statistics,
            sensitivity,
            min(left, settings.maximum_bits),
            **bounds,
            work=work,
            mean_work_bits=mean_bits,
        )
    solve = allocate_exact if settings.allocator == "exact" else allocate
    return solve(statistics, mean_bits, **bounds)
