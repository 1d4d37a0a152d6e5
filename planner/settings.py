"""Everything about a build that a user may choose, checked in one place."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from planner.target import Target
from planner.vasmp import MAXIMUM_BITS, MINIMUM_BITS
from schemas.errors import UsageError
from schemas.manifest import SettingOrList
from schemas.transformer_config import Variant

Allocator = Literal["greedy", "exact"]


def check_bounds(minimum_bits: int, maximum_bits: int) -> None:
    """Make sure that weight bits can lie within the bounds.

    Raises:
        UsageError: they are not within 1 ... 8, or in the wrong order.
    """
    if not 1 <= minimum_bits <= maximum_bits <= 8:
        raise UsageError(
            f"weight bits from {minimum_bits} to {maximum_bits}",
            hint="1 <= minimum <= maximum <= 8",
        )


@dataclass(frozen=True)
class BuildSettings:
    """How to quantize. The defaults are the paper's, and the rotation's signs ours.

    Attributes:
        target: mean bits to reach.
        variant: which published network the weights are; they do not tell.
        global_rank, local_rank: r_G and r_L of H-SVD; 0 goes without.
        minimum_bits, maximum_bits: bounds of every layer's weight bits.
        allocator: how VaSMP's integer problem is solved.
        rotation: whether weights and activations are rotated at all.
        rotation_signs: whether the rotation flips random signs first.
        keep: regular expressions; a layer whose name one of them finds stays in 16 bits.
        seed: of signs and randomized decompositions; 0 to 2^63 - 1.

    Raises:
        UsageError: a value is out of range, or a pattern is no regular expression.
    """

    target: Target
    variant: Variant = "q"
    global_rank: int = 32
    local_rank: int = 8
    minimum_bits: int = MINIMUM_BITS
    maximum_bits: int = MAXIMUM_BITS
    allocator: Allocator = "greedy"
    rotation: bool = True
    rotation_signs: bool = True
    keep: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.global_rank < 0 or self.local_rank < 0:
            raise UsageError(
                f"ranks {self.global_rank} and {self.local_rank} must not be negative",
                hint="a rank of 0 leaves the factors out",
            )
        check_bounds(self.minimum_bits, self.maximum_bits)
        if self.variant not in get_args(Variant):
            raise UsageError(
                f"there is no variant {self.variant!r}",
                hint="one of: " + ", ".join(get_args(Variant)),
            )
        if self.allocator not in get_args(Allocator):
            raise UsageError(
                f"there is no allocator {self.allocator!r}",
                hint="one of: " + ", ".join(get_args(Allocator)),
            )
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed {self.seed}", hint="give a whole number from 0 to 2^63 - 1")
        for pattern in self.keep:
            try:
                re.compile(pattern)
            except re.error as cause:
                raise UsageError(f"pattern {pattern!r}: {cause}") from None

    def kept_layers(self, names: Sequence[str]) -> frozenset[str]:
        """Layers among ``names`` that stay in 16 bits.

        Raises:
            UsageError: a pattern finds no layer.
        """
        kept: set[str] = set()
        for pattern in self.keep:
            found = [name for name in names if re.search(pattern, name)]
            if not found:
                raise UsageError(
                    f"pattern {pattern!r} finds none of the {len(names)} layers",
                    hint=f"a layer's name looks like {names[0]}",
                )
            kept.update(found)
        return frozenset(kept)

    def recorded(self) -> dict[str, SettingOrList]:
        """The settings as the manifest records them."""
        values = asdict(self)
        values["keep"] = list(self.keep)
        values["target"] = str(self.target)
        return values
