"""Means over images, and how sure they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
SEED = 0


@dataclass(frozen=True)
class Mean:
    """A mean over images.

    Attributes:
        value: the mean.
        low, high: bootstrap interval of it, at `LEVEL`: how far it would move with other images of
            the same kind.
        images: how many there were.
    """

    value: float
    low: float
    high: float
    images: int


def mean_with_interval(values: Sequence[float]) -> Mean:
    """Average at least one value.

    Percentile bootstrap over images, seeded: the same images are drawn for every method, so that
    equal values give equal intervals.
    """
    sample = np.asarray(values, np.float64)
    rng = np.random.default_rng(SEED)
    draws = rng.integers(len(sample), size=(RESAMPLES, len(sample)))
    low, high = np.quantile(sample[draws].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Mean(float(sample.mean()), float(low), float(high), len(sample))
