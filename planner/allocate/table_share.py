"""What a table of modulations takes of the budget of weight bits, and what it gives back (ours).

A table stands for the weights of the layers that it replaces. A mean over the remaining weights
would therefore compare packs of different sizes; so the mean of a network's weight bits is one over
all its weights, and the table's own bits are those of the weights that it stands for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from artifacts.family import Architecture
from artifacts.pack.modulation import TABLE_BITS
from planner.allocate.grid import rounded_down
from schemas.errors import UsageError
from schemas.manifest import LayerRecord, ModulationRecord


@dataclass(frozen=True)
class TableShare:
    """The part of a network's weights that a table stands for.

    Attributes:
        weights: how many there are.
        bits: of the table, all rows.
    """

    weights: int = 0
    bits: int = 0

    def pays(self, mean_bits: float) -> bool:
        """Whether the table is smaller than the codes of the weights that it stands for."""
        return self.bits < self.weights * mean_bits

    def mean_of_rest(self, mean_bits: float, weights: int) -> float:
        """Mean bits that are left for the weights stored as codes, rounded down to 10^-6.

        Args:
            mean_bits: over all weights; counts as the decimal number that was written.
            weights: stored as codes.

        Raises:
            UsageError: the table takes it all.
        """
        if not self.weights:
            return mean_bits
        allowed = Fraction(repr(float(mean_bits))) * (weights + self.weights) - self.bits
        if allowed <= 0:
            raise UsageError(
                f"the table of modulations alone takes more than {mean_bits:g} bits per weight",
                hint="--modulation weights stores the layers instead",
            )
        return rounded_down(allowed / weights)


NO_TABLE = TableShare()


def table_share(architecture: Architecture, rows: int) -> TableShare:
    """The share of a table in place of the layers.

    Args:
        architecture: the network.
        rows: of every layer: prompts times timesteps; 0 where there is no such table.
    """
    if not rows:
        return NO_TABLE
    linears = architecture.quantizable  # of blocks: the network's last modulation is none of them
    shapes = [linears[name] for name in architecture.modulations.layers if name in linears]
    return TableShare(
        sum(shape.out_features * shape.in_features for shape in shapes),
        TABLE_BITS * rows * sum(shape.out_features for shape in shapes),
    )


def share_of_record(architecture: Architecture, record: ModulationRecord | None) -> TableShare:
    """The share of the table that a manifest records; none where the weights are stored too."""
    if record is None or record.weights:
        return NO_TABLE
    return table_share(architecture, len(record.prompts) * len(record.timesteps))


def mean_weight_bits(records: Mapping[str, LayerRecord], share: TableShare = NO_TABLE) -> Fraction:
    """Mean bits of the weights that are stored as codes or stood for by a table, exactly.

    Args:
        records: of every layer; those that stay in 16 bits do not count.
        share: of the table, where there is one.
    """
    sizes = {
        name: record.out_features * record.in_features
        for name, record in records.items()
        if record.is_quantized
    }
    stored = sum(size * records[name].weight_bits for name, size in sizes.items())
    return Fraction(stored + share.bits, sum(sizes.values()) + share.weights)
