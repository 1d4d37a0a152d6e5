"""Weight bits of every layer, by the allocation that the settings ask for."""

from collections.abc import Iterable, Sequence

from planner.allocate.exact import allocate_exact
from planner.allocate.vasmp import LayerStatistics, allocate
from planner.settings import BuildSettings


def uniform_bits(names: Iterable[str], settings: BuildSettings) -> dict[str, int]:
    """The target's bits in every layer, for which no weight has to be read."""
    return dict.fromkeys(names, int(settings.target.weight_bits))


def weight_bits(statistics: Sequence[LayerStatistics], settings: BuildSettings) -> dict[str, int]:
    """VaSMP: layer name -> weight bits, with the allocator that was asked for."""
    solve = allocate_exact if settings.allocator == "exact" else allocate
    return solve(
        statistics,
        settings.target.weight_bits,
        minimum_bits=settings.minimum_bits,
        maximum_bits=settings.maximum_bits,
    )
