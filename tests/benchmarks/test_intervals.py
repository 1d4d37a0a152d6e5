"""Statistics of the comparison: known answers, and what they must not depend on."""

import math

import numpy as np
import pytest
import torch

from benchmarks.cases import EXACT_DB
from benchmarks.quality.intervals import paired_difference, per_image, relative_error_db
from runtime.evaluation.statistics import Interval, mean_interval


def test_relative_error_of_a_known_difference():
    reference = torch.tensor([[3.0, 4.0]])
    assert relative_error_db(reference, torch.tensor([[3.0, 4.5]])) == pytest.approx(20)
    assert relative_error_db(reference, torch.zeros(1, 2)) == pytest.approx(0)
    # Twice the scale of both is the same error.
    assert relative_error_db(2 * reference, torch.tensor([[6.0, 9.0]])) == pytest.approx(20)
    assert relative_error_db(reference, reference.clone()) == EXACT_DB


def test_a_latent_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        relative_error_db(torch.ones(2), torch.tensor([1.0, math.nan]))
    with pytest.raises(ValueError, match="zero"):
        relative_error_db(torch.zeros(2), torch.ones(2))


def test_seeds_are_averaged_within_an_image_before_images_are_drawn():
    once = [[1.0], [5.0], [9.0]]
    noisy = [[0.0, 2.0], [4.0, 6.0], [8.0, 10.0]]
    assert list(per_image(noisy)) == [1, 5, 9]
    assert mean_interval(per_image(once)) == mean_interval(per_image(noisy))


def test_pairing_shows_an_effect_that_the_rows_own_intervals_hide():
    rng = np.random.default_rng(5)
    images = rng.normal(25, 4, 18)
    plain = [[v] for v in images]
    better = [[v + 0.3 + e] for v, e in zip(images, rng.normal(0, 0.1, 18), strict=True)]
    alone, other = mean_interval(per_image(better)), mean_interval(per_image(plain))
    assert alone.low < other.high
    paired = paired_difference(better, plain)
    assert paired.low > 0.2
    assert paired.high < 0.4
    assert paired.excludes_zero
    reverse = paired_difference(plain, better)
    assert reverse.high < 0
    assert reverse.excludes_zero


def test_no_effect_is_not_called_one():
    assert not Interval(0.1, -0.2, 0.4, 2).excludes_zero
    same = [[1.0], [7.0]]
    assert paired_difference(same, same) == Interval(0, 0, 0, 2)
    assert not paired_difference(same, same).excludes_zero


def test_what_cannot_be_paired_or_averaged_is_refused():
    with pytest.raises(ValueError, match="paired"):
        paired_difference([[1.0]], [[1.0], [2.0]])
    with pytest.raises(ValueError, match="every image"):
        per_image([[1.0], []])
