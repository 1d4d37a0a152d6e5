"""Bit targets as users write them: ``W4A4``, ``w3.5a4``, ``W4A16``."""

import re
from dataclasses import dataclass

from planner.allocate.vasmp import MAXIMUM_BITS, MINIMUM_BITS
from schemas.bit_grid import MeanBitWidths
from schemas.bit_widths import UNQUANTIZED
from schemas.errors import UsageError

MINIMUM_ACTIVATION_BITS = 2
MAXIMUM_ACTIVATION_BITS = 8

DEFAULT_TEXT = "W4A4"
SHOWN_CHARACTERS = 40
"""Of a text that is no target, this much is repeated in the message."""

# [0-9] and not \d, which also takes the digits of other scripts.
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_TARGET = re.compile(rf"w{_NUMBER}a{_NUMBER}", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """Mean bits to reach; whole numbers are held as int, so that a 4 is written back as 4.

    Attributes:
        weight_bits: largest parameter-weighted mean over all quantized weights.
        activation_bits: largest mean over timesteps; 16 leaves activations unquantized.
    """

    weight_bits: int | float
    activation_bits: int | float

    def __str__(self) -> str:
        return f"W{self.weight_bits}A{self.activation_bits}"

    def to_schema(self) -> MeanBitWidths:
        """Give the record that ``bit_grid.json`` and the manifest hold."""
        return MeanBitWidths(weight_bits=self.weight_bits, activation_bits=self.activation_bits)


def _number(text: str) -> int | float:
    value = float(text)  # a thousand digits become infinity here, and are then out of range
    return int(value) if value.is_integer() else value


def _nearest_activation_bits(bits: int | float) -> int | float:
    """Clip to 2 ... 8 or 16, whichever is nearer; half way, the choice that loses no quality."""
    if bits >= (MAXIMUM_ACTIVATION_BITS + UNQUANTIZED) / 2:
        return UNQUANTIZED
    return min(max(bits, MINIMUM_ACTIVATION_BITS), MAXIMUM_ACTIVATION_BITS)


def parse_target(
    text: str,
    *,
    minimum_weight_bits: int = MINIMUM_BITS,
    maximum_weight_bits: int = MAXIMUM_BITS,
) -> Target:
    """Read ``W<bits>A<bits>``, in capitals or not, either number with decimals or without.

    Args:
        text: what the user wrote.
        minimum_weight_bits: fewest bits of a layer; a lower mean cannot be reached.
        maximum_weight_bits: most bits of a layer; a higher mean cannot be reached.

    Raises:
        UsageError: the text is no target, or one that cannot be reached; the hint names the
            nearest that can.
    """
    match = _TARGET.fullmatch(text)
    if match is None:
        shown = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
        raise UsageError(
            f"{shown!r} is not a bit target",
            hint=f"write weight and activation bits as in {DEFAULT_TEXT}, W3.5A4 or W4A16",
        )
    asked = Target(_number(match[1]), _number(match[2]))
    nearest = Target(
        min(max(asked.weight_bits, minimum_weight_bits), maximum_weight_bits),
        _nearest_activation_bits(asked.activation_bits),
    )
    if nearest != asked:
        raise UsageError(
            f"target W{match[1][:SHOWN_CHARACTERS]}A{match[2][:SHOWN_CHARACTERS]} cannot be"
            f" reached: weights take {minimum_weight_bits} to {maximum_weight_bits} bits,"
            f" activations {MINIMUM_ACTIVATION_BITS} to {MAXIMUM_ACTIVATION_BITS} or"
            f" {UNQUANTIZED}",
            hint=f"the nearest feasible target is {nearest}",
        )
    return asked
