"""What a table of modulations means for the budget of weight bits, by a pack's own settings."""

from artifacts.codec.layer_parts import expected_parts
from artifacts.family import Architecture, LinearShape
from artifacts.pack.modulation import TABLE_BITS
from planner.allocate.table_share import NO_TABLE, TableShare
from planner.settings import BuildSettings
from planner.weights.layer import planned_record
from schemas.manifest import ModulationRecord

_CODES = "codes"


def table_share(architecture: Architecture, settings: BuildSettings, rows: int) -> TableShare:
    """The share of a table in place of the layers.

    Args:
        architecture: the network.
        settings: ranks and widths of the factors that the layers would have had.
        rows: of every layer: prompts times timesteps; 0 where there is no such table.
    """
    if not rows:
        return NO_TABLE
    linears = architecture.quantizable  # of blocks: the network's last modulation is none of them
    shapes = [linears[name] for name in architecture.modulations.layers if name in linears]
    table = sum(TABLE_BITS * rows * shape.out_features for shape in shapes)
    beside = sum(_beside(shape, settings) for shape in shapes)
    # No less than nothing: factors of small layers may outweigh all codes of the network.
    return TableShare(
        sum(shape.out_features * shape.in_features for shape in shapes), max(0, table - beside)
    )


def share_of_record(
    architecture: Architecture, settings: BuildSettings, record: ModulationRecord | None
) -> TableShare:
    """The share of the table that a manifest records; none where the weights are stored too."""
    if record is None or record.weights:
        return NO_TABLE
    return table_share(architecture, settings, len(record.prompts) * len(record.timesteps))


def _beside(shape: LinearShape, settings: BuildSettings) -> int:
    """Bits that a layer stores beside its codes, without local factors: their size is not known."""
    # Vectors that the budget pays for are no part of what a layer would have had anyway.
    planned = planned_record(shape.out_features, shape.in_features, 1, settings, balanced=False)
    parts = expected_parts(planned, has_bias=False)
    return 8 * sum(spec.nbytes for part, spec in parts.items() if part != _CODES)
