"""Which numbers a stored float tensor may hold."""

from typing import Literal

from torch import Tensor

Values = Literal["any", "finite", "finite, not negative", "finite, positive"]

LARGEST_MAGNITUDE = 1e18
"""Largest value taken for a number of a pack. Two factors that are multiplied stay in float32's
range; checkpoints are held to less (`artifacts.checkpoint.reader`), so that what follows from their
weights stays below this."""


def wrong_value(tensor: Tensor, allowed: Values = "finite") -> str | None:
    """What ``tensor`` has that is not allowed, in words; None for nothing."""
    if allowed == "any" or tensor.numel() == 0:
        return None
    low, high = map(float, tensor.aminmax())  # both NaN if there is one
    largest = max(-low, high)
    if not largest < float("inf"):
        return "a value that is not finite"
    if largest > LARGEST_MAGNITUDE:
        return f"a value that is far too large ({largest:.3g})"
    if allowed == "finite, not negative" and low < 0:
        return "a negative value"
    if allowed == "finite, positive" and low < 1 / LARGEST_MAGNITUDE:
        return "a value that is not positive" if low <= 0 else f"a value near zero ({low:.3g})"
    return None
