"""What a table of modulations takes of the budget of weight bits, and what it gives back (ours).

A table stands for layers: their codes, scales and factors. A mean over the remaining weights would
compare packs of different sizes. So the mean of a network's weight bits is one over all its
weights, and what the table takes beyond scales and global factors counts as the bits of those that
it stands for: a pack with a table has no more bytes than one without. Smoothing vectors that are
there by choice count likewise: what they take is taken from the codes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from planner.allocate.grid import rounded_down
from schemas.errors import UsageError
from schemas.manifest import LayerRecord

VECTOR_BITS = 32
"""Of a number of a smoothing vector."""


@dataclass(frozen=True)
class TableShare:
    """The part of a network's weights that a table stands for.

    Attributes:
        weights: how many there are.
        bits: of the table, all rows, less those of the scales and global factors that its layers
            would have had; 0 where these are more.
    """

    weights: int = 0
    bits: int = 0

    def pays(self, mean_bits: float) -> bool:
        """Whether the table is smaller than the codes of the weights that it stands for."""
        return self.bits < self.weights * mean_bits

    def mean_of_rest(self, mean_bits: float, weights: int, beside: int = 0) -> float:
        """Mean bits that are left for the weights stored as codes, rounded down to 10^-6.

        Args:
            mean_bits: over all weights; counts as the decimal number that was written.
            weights: stored as codes.
            beside: bits of what else the codes have to make room for.

        Raises:
            UsageError: the table takes it all.
        """
        if not self.weights and not beside:
            return mean_bits
        allowed = Fraction(repr(float(mean_bits))) * (weights + self.weights) - self.bits - beside
        if allowed <= 0:
            raise UsageError(
                f"the table of modulations alone takes more than {mean_bits:g} bits per weight",
                hint="--modulation weights stores the layers instead",
            )
        return rounded_down(allowed / weights)


NO_TABLE = TableShare()


def mean_weight_bits(
    records: Mapping[str, LayerRecord], share: TableShare = NO_TABLE, *, with_vectors: bool = False
) -> Fraction:
    """Mean bits of the weights that are stored as codes or stood for by a table, exactly.

    Args:
        records: of every layer; those that stay in 16 bits do not count.
        share: of the table, where there is one.
        with_vectors: whether smoothing vectors count.
    """
    sizes = {
        name: record.out_features * record.in_features
        for name, record in records.items()
        if record.is_quantized
    }
    stored = sum(size * records[name].weight_bits for name, size in sizes.items())
    if with_vectors:
        stored += sum(
            VECTOR_BITS * records[name].in_features for name in sizes if records[name].smoothing
        )
    return Fraction(stored + share.bits, sum(sizes.values()) + share.weights)
