"""Bootstrap intervals: known answers, and what they must not depend on."""

import math

import numpy as np
import pytest

from runtime.evaluation.statistics import Interval, mean_interval


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
    assert mean_interval(np.array([0.0, 1.0])) == Interval(0.5, 0.0, 1.0, 2)


def test_the_same_values_give_the_same_interval_and_a_shift_shifts_it():
    values = np.random.default_rng(4).normal(size=18)
    first, again, shifted = (mean_interval(v) for v in (values, values.copy(), values + 10))
    assert first == again
    assert shifted.low == pytest.approx(first.low + 10)
    assert shifted.high == pytest.approx(first.high + 10)


def test_interval_holds_the_mean_and_is_the_same_every_time():
    values = [1.0, 2.0, 4.0, 8.0, 3.0]
    found = mean_interval(values)
    assert found.mean == pytest.approx(3.6)
    assert 1 <= found.low < found.mean < found.high <= 8
    assert found == mean_interval(values)
    assert found.images == 5
    # The normal approximation: 1.96 standard errors, with a deviation over n.
    half = 1.96 * np.std(values) / np.sqrt(5)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.15)
