"""Weight bits as the settings ask for them: VaSMP by either solver."""

from collections.abc import Sequence

from planner.allocate.exact import allocate_exact
from planner.allocate.vasmp import LayerStatistics, allocate
from planner.settings import BuildSettings


def weight_bits(statistics: Sequence[LayerStatistics], settings: BuildSettings) -> dict[str, int]:
    """VaSMP: layer name -> weight bits, with the allocator that was asked for."""
    solve = allocate_exact if settings.allocator == "exact" else allocate
    return solve(
        statistics,
        settings.target.weight_bits,
        minimum_bits=settings.minimum_bits,
        maximum_bits=settings.maximum_bits,
    )
