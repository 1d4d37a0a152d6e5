"""Means over images, and how sure they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 2026


@dataclass(frozen=True)
class Interval:
    """A mean over images, and where it would lie for other images of the same kind.

    Attributes:
        mean: over the images.
        low, high: bounds of the bootstrap interval, at `CONFIDENCE`.
        images: how many there were.
    """

    mean: float
    low: float
    high: float
    images: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def mean_interval(images: Sequence[float] | np.ndarray) -> Interval:
    """Mean of one value per image, at least one, with its percentile bootstrap interval.

    Images are drawn with replacement; the draws are the same in every call with as many images, so
    that equal values give equal intervals whatever was measured.
    """
    values = np.asarray(images, np.float64)
    draws = np.random.default_rng(SEED).integers(len(values), size=(RESAMPLES, len(values)))
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(values[draws].mean(axis=1), [tail, 100 - tail])
    return Interval(float(values.mean()), float(low), float(high), len(values))
