"""Statistics of the comparison: known answers, and what they must not depend on."""

import math

import numpy as np
import pytest
import torch

from benchmarks.cases import EXACT_DB
from benchmarks.quality.intervals import (
    Interval,
    mean_interval,
    paired_difference,
    per_image,
    relative_error_db,
)


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


def test_interval_of_normal_values_is_the_textbook_one():
    values = np.random.default_rng(3).normal(5, 2, 400)
    found = mean_interval(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    # The bootstrap's own noise is about 1 % of the width with 10,000 draws.
    assert found.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_interval_of_two_images_is_known_exactly():
    # Means of two draws from {0, 1}: 0, 1/2 or 1, the outer ones with probability 1/4 each.
    assert mean_interval(np.array([0.0, 1.0])) == Interval(0.5, 0.0, 1.0)


def test_the_same_values_give_the_same_interval_and_a_shift_shifts_it():
    values = np.random.default_rng(4).normal(size=18)
    first, again, shifted = (mean_interval(v) for v in (values, values.copy(), values + 10))
    assert first == again
    assert shifted.low == pytest.approx(first.low + 10)
    assert shifted.high == pytest.approx(first.high + 10)


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
    assert not Interval(0.1, -0.2, 0.4).excludes_zero
    same = [[1.0], [7.0]]
    assert paired_difference(same, same) == Interval(0, 0, 0)
    assert not paired_difference(same, same).excludes_zero


def test_what_cannot_be_paired_or_averaged_is_refused():
    with pytest.raises(ValueError, match="paired"):
        paired_difference([[1.0]], [[1.0], [2.0]])
    with pytest.raises(ValueError, match="every image"):
        per_image([[1.0], []])
