"""How hard errors of detail pull at a picture that is learned, beside its other errors."""

from dataclasses import dataclass

from torch import Tensor

from training.autoencoder import reconstruction_loss
from training.detail import (
    balanced,
    colour_error,
    gradient_difference,
    overshoot_error,
    pattern_error,
    quiet_error,
    ragged_error,
    spectrum_difference,
    weave_error,
)
from training.features import feature_error

PATTERN_WEIGHT = 100.0
"""Of the error that repeats with the patches: twenty times that of any other squared error."""


@dataclass(frozen=True)
class Pulls:
    """How hard errors of detail pull at the picture, by what the other errors pull.

    Attributes:
        detail: each of the two that ask for detail, which decides then; the other errors say where
            there is none.
        quiet: that of speckle in flat fields.
        overshoot: that of single dots.
        ragged: that of teeth along edges.
        weave: that of dots on the grid of the latent.
        pattern: that of what repeats with the patches, beside what of it is in the other errors.
        colour: that of the colour of fields, likewise.
        features: that of what a network that recognises things sees.
    """

    detail: float = 0.0
    quiet: float = 0.0
    overshoot: float = 0.0
    ragged: float = 0.0
    weave: float = 0.0
    pattern: float = 0.0
    colour: float = 0.0
    features: float = 0.0

    @property
    def total(self) -> float:
        """Of all errors together, those that are not of detail counting once."""
        return 1 + self.detail + sum(vars(self).values())


def pulled_error(found: Tensor, wanted: Tensor, detailed: Tensor, pulls: Pulls) -> Tensor:
    """`picture_error`, and the errors of detail of pictures that shall have detail; a scalar.

    It reads nothing off the device, so that a GPU can replay it as a graph.

    Args:
        found: pictures [n, 3, H, W], -1 ... 1, which gradients reach.
        wanted: likewise.
        detailed: which shall have as much detail as wanted [n].
        pulls: how hard errors of detail pull.
    """
    base = picture_error(found, wanted)
    share = detailed / detailed.sum().clamp_min(1)
    errors = [
        (factor, (error(found, wanted) * share).sum())
        for factor, error in (
            (pulls.detail, gradient_difference),
            (pulls.detail, spectrum_difference),
            (pulls.quiet, quiet_error),
            (pulls.overshoot, overshoot_error),
            (pulls.ragged, ragged_error),
            (pulls.weave, weave_error),
            (pulls.pattern, pattern_error),
            (pulls.colour, colour_error),
            (pulls.features, feature_error),
        )
        if factor
    ]
    return balanced(found, base, errors) if errors else base


def picture_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Absolute, squared and gradient error, and more of it for what repeats with the patches."""
    patterns = pattern_error(found, wanted).mean()
    return reconstruction_loss(found, wanted) + PATTERN_WEIGHT * patterns
