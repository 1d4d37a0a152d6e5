"""Widths under budgets, against brute force."""

import itertools

import numpy as np
import pytest

from artifacts.codec.gaussian_quantizer import gaussian_level
from planner.allocate.budgets import Budget, allocate_widths, predicted_error
from schemas.errors import UsageError


def error(costs, bits):
    return sum(c * gaussian_level(b).mse for c, b in zip(costs, bits, strict=True))


def spent(budget, bits):
    return sum(size * b for size, b in zip(budget.sizes, bits, strict=True))


@pytest.mark.parametrize("seed", range(12))
def test_equal_sizes_give_the_optimum(seed):
    rng = np.random.default_rng(seed)
    costs = (10 ** rng.uniform(-4, 2, 5)).tolist()
    budget = Budget([1] * 5, 3.4)
    bits = allocate_widths(costs, [budget], minimum_bits=2, maximum_bits=5)
    best = min(
        (error(costs, b), b)
        for b in itertools.product(range(2, 6), repeat=5)
        if sum(b) <= budget.allowed
    )
    assert budget.allowed == 17
    assert error(costs, bits) == pytest.approx(best[0])


@pytest.mark.parametrize("seed", range(12))
def test_budgets_are_kept_and_used_up(seed):
    rng = np.random.default_rng(seed)
    costs = (10 ** rng.uniform(-4, 2, 30)).tolist()
    sizes = rng.integers(1, 9, 30).tolist()
    work = (rng.integers(1, 9, 30) * 1000).tolist()
    for budgets in ([Budget(sizes, 4.1)], [Budget(sizes, 4.1), Budget(work, 4.1)]):
        bits = allocate_widths(costs, budgets, minimum_bits=2, maximum_bits=8)
        left = [budget.allowed - spent(budget, bits) for budget in budgets]
        assert min(left) >= 0
        for item, b in enumerate(bits):
            fits = all(
                budget.sizes[item] <= rest for budget, rest in zip(budgets, left, strict=True)
            )
            assert b == 8 or not fits
        flat = [4] * len(costs)
        assert predicted_error(costs, bits) < predicted_error(costs, flat)


def test_two_budgets_are_within_a_little_of_the_optimum():
    for seed in range(8):
        rng = np.random.default_rng(seed)
        costs = (10 ** rng.uniform(-3, 1, 6)).tolist()
        budgets = [Budget(rng.integers(1, 6, 6).tolist(), 3.5) for _ in range(2)]
        bits = allocate_widths(costs, budgets, minimum_bits=2, maximum_bits=5)
        best = min(
            error(costs, b)
            for b in itertools.product(range(2, 6), repeat=6)
            if all(spent(budget, b) <= budget.allowed for budget in budgets)
        )
        # What the last bits cannot fill, at six items; the more items, the less.
        assert best <= error(costs, bits) <= 2.5 * best


def test_what_costs_nothing_gets_the_least_until_the_rest_is_full():
    for mean, expected in ((4, [2, 6]), (5, [4, 6])):
        budget = [Budget([1, 1], mean)]
        assert allocate_widths([0.0, 1.0], budget, minimum_bits=2, maximum_bits=6) == expected


def test_the_result_does_not_depend_on_scale():
    costs = [3.0, 0.1, 7.0, 0.02]
    budget = [Budget([3, 5, 2, 7], 4.3)]
    bits = allocate_widths(costs, budget, minimum_bits=2, maximum_bits=8)
    smaller = allocate_widths([c * 2**-40 for c in costs], budget, minimum_bits=2, maximum_bits=8)
    assert bits == smaller


@pytest.mark.parametrize("mean", [1.9, 8.1])
def test_a_budget_outside_the_bounds(mean):
    with pytest.raises(UsageError, match="cannot be met"):
        allocate_widths([1.0], [Budget([1], mean)], minimum_bits=2, maximum_bits=8)


def test_unquantized_items_have_no_error():
    assert predicted_error([1.0, 5.0], [4, 16]) == gaussian_level(4).mse
