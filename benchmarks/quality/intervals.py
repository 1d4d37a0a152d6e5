"""What intervals are taken of: errors in dB, means over seeds, differences between rows."""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from benchmarks.cases import EXACT_DB
from runtime.evaluation.statistics import Interval, mean_interval

Table = Sequence[Sequence[float]]
"""Measured values: one list per image, one value per noise seed in it."""


def relative_error_db(reference: Tensor, other: Tensor) -> float:
    """``20 log10(|reference| / |reference - other|)``, higher is closer; at most EXACT_DB.

    Raises:
        ValueError: the reference is zero, or a value is not finite.
    """
    signal = float(reference.double().norm())
    noise = float((reference.double() - other.double()).norm())
    if not signal or not math.isfinite(signal) or not math.isfinite(noise):
        raise ValueError("a latent is zero, or has a value that is not finite")
    return min(20 * math.log10(signal / noise), EXACT_DB) if noise else EXACT_DB


def per_image(values: Table) -> np.ndarray:
    """Average over seeds within every image: noise of one picture is no new picture.

    Raises:
        ValueError: there is no image, or one without values.
    """
    if not values or not all(values):
        raise ValueError("an interval needs at least one value of every image")
    return np.array([np.mean(seeds) for seeds in values])


def paired_difference(values: Table, others: Table) -> Interval:
    """Interval of ``values - others``, subtracted image by image before anything is drawn.

    Most of what varies between images varies in both rows and cancels, so effects show that the
    rows' own intervals hide.

    Raises:
        ValueError: the rows were not measured on as many images.
    """
    if len(values) != len(others):
        raise ValueError(f"{len(values)} and {len(others)} images cannot be paired")
    return mean_interval(per_image(values) - per_image(others))
