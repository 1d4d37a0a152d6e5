"""Bit allocation: its invariants, and the exact solution against brute force."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.layout import block_linears
from planner.allocate import exact as exact_allocation
from planner.allocate.exact import allocate_exact
from planner.allocate.vasmp import (
    VARIANCE_FLOOR,
    LayerStatistics,
    affordable_bits,
    allocate,
    continuous_bits,
    lagrangian_bound,
    predicted_distortion,
    stored_bits,
)
from schemas.errors import ResourceError, UsageError

PUBLISHED_SIZES = {
    name: shape.out_features * shape.in_features
    for name, shape in block_linears(TransformerConfig()).items()
}


def layers_of(sizes, variances):
    return [
        LayerStatistics(f"layer.{index}", size, variance)
        for index, (size, variance) in enumerate(zip(sizes, variances, strict=True))
    ]


def published_layers(seed, spread=1.0):
    """The published network's layers, with variances spread over a log-normal."""
    draw = np.random.default_rng(seed).normal(-7.0, spread, len(PUBLISHED_SIZES))
    return [
        LayerStatistics(name, size, float(np.exp(log)))
        for (name, size), log in zip(PUBLISHED_SIZES.items(), draw, strict=True)
    ]


def least_distortion(layers, budget_bits, minimum_bits, maximum_bits):
    """The optimum by trying everything."""
    total = sum(layer.parameters for layer in layers)
    allowed = math.floor(Fraction(str(budget_bits)) * total)
    return min(
        sum(
            layer.parameters * layer.variance * 4.0**-b
            for layer, b in zip(layers, bits, strict=True)
        )
        for bits in itertools.product(range(minimum_bits, maximum_bits + 1), repeat=len(layers))
        if sum(layer.parameters * b for layer, b in zip(layers, bits, strict=True)) <= allowed
    )


sizes = st.one_of(
    st.integers(1, 9), st.integers(1, 9).map(lambda k: k * 1536**2), st.integers(1, 20_000_000)
)
variances = st.one_of(st.just(0.0), st.floats(1e-12, 1e6), st.floats(1e-4, 1e-2))
layer_lists = st.lists(st.tuples(sizes, variances), min_size=1, max_size=12).map(
    lambda pairs: layers_of(*zip(*pairs, strict=True))
)
budgets = st.integers(200, 800).map(lambda hundredths: hundredths / 100)


@pytest.mark.parametrize("allocator", [allocate, allocate_exact])
@given(layer_lists, budgets, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_budget_is_kept_and_used_up_in_any_layer_order(allocator, layers, budget, random):
    bits = allocator(layers, budget)
    assert set(bits) == {layer.name for layer in layers}
    assert all(2 <= count <= 8 for count in bits.values())
    total = sum(layer.parameters for layer in layers)
    left = Fraction(str(budget)) * total - stored_bits(layers, bits)
    assert left >= 0
    assert Fraction(stored_bits(layers, bits), total) <= Fraction(str(budget))
    assert all(layer.parameters > left for layer in layers if bits[layer.name] < 8)

    shuffled = list(layers)
    random.shuffle(shuffled)
    again = allocator(shuffled, budget)
    assert again == bits
    assert list(again) == list(bits) == sorted(bits)


few_layers = st.lists(st.tuples(sizes, variances), min_size=4, max_size=7).map(
    lambda pairs: layers_of(*zip(*pairs, strict=True))
)


@given(few_layers, st.integers(200, 500).map(lambda hundredths: hundredths / 100))
@example(layers_of([1, 1, 1, 1], [0.0, 0.0, 0.0, 0.0]), 3.5)
@example(layers_of([7, 5, 3, 2], [1e-200, 1e-199, 2e-200, 1e-180]), 3.3)
@example(layers_of([7, 5, 3, 2], [1e200, 1e199, 2e198, 1e180]), 3.3)
@settings(deadline=None, max_examples=60)
def test_the_exact_allocation_equals_brute_force(layers, budget):
    best = least_distortion(layers, budget, 2, 5)
    exact = allocate_exact(layers, budget, maximum_bits=5)
    assert predicted_distortion(layers, exact) == pytest.approx(best, rel=1e-10, abs=0)

    # The bound is below the optimum, greedy is not.
    assert lagrangian_bound(layers, budget, maximum_bits=5) <= best * (1 + 1e-10)
    greedy = predicted_distortion(layers, allocate(layers, budget, maximum_bits=5))
    assert greedy >= best * (1 - 1e-10)


@given(layer_lists, budgets, st.sampled_from([-100, -20, 30]))
# Where nearly all layers are dead, the floor of their variances is nearly the mean.
@example(layers_of([2359296, 7077888, 946], [0.0, 0.0, 3.0]), 4.05, -100)
@settings(deadline=None)
def test_bits_do_not_depend_on_the_scale_of_the_weights(layers, budget, exponent):
    scaled = [
        LayerStatistics(layer.name, layer.parameters, math.ldexp(layer.variance, 2 * exponent))
        for layer in layers
    ]
    assert allocate(scaled, budget) == allocate(layers, budget)


@given(st.lists(variances, min_size=4, max_size=6), budgets)
@example([0.0, 0.0, 0.0, 1e-12], 3.0)  # a dead layer and a faint one are not the same
@settings(deadline=None, max_examples=40)
def test_greedy_is_optimal_for_layers_of_one_size(variances, budget):
    layers = layers_of([6] * len(variances), variances)
    greedy = predicted_distortion(layers, allocate(layers, min(budget, 5.0), maximum_bits=5))
    best = least_distortion(layers, min(budget, 5.0), 2, 5)
    assert greedy == pytest.approx(best, rel=1e-10, abs=0)


def test_greedy_can_miss_the_optimum_that_exact_finds():
    # Greedy gives the small layer its bit first; then the large one no longer fits.
    layers = layers_of([2, 3], [1.01, 1.0])
    greedy, exact = allocate(layers, 2.6), allocate_exact(layers, 2.6)
    assert greedy == {"layer.0": 3, "layer.1": 2}
    assert exact == {"layer.0": 2, "layer.1": 3}
    assert predicted_distortion(layers, exact) < predicted_distortion(layers, greedy)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("budget", [2.2, 3.5, 4, 4.01, 6.3])
def test_on_the_published_network_greedy_is_next_to_optimal(seed, budget):
    layers = published_layers(seed)
    greedy = predicted_distortion(layers, allocate(layers, budget))
    exact = predicted_distortion(layers, allocate_exact(layers, budget))
    bound = lagrangian_bound(layers, budget)
    assert bound * (1 - 1e-12) <= exact <= greedy * (1 + 1e-12)
    assert greedy <= bound * 1.001


def test_next_to_the_minimum_greedy_is_not_and_exact_helps():
    # With 0.05 bits per weight to give, one large bit that does not fit is a visible loss.
    layers = published_layers(seed=4)
    bound = lagrangian_bound(layers, 2.05)
    assert predicted_distortion(layers, allocate(layers, 2.05)) > bound * 1.001
    assert predicted_distortion(layers, allocate_exact(layers, 2.05)) < bound * 1.0001


def test_mixed_bits_beat_equal_bits():
    layers = published_layers(seed=1)
    mixed = predicted_distortion(layers, allocate(layers, 4))
    equal = predicted_distortion(layers, dict.fromkeys(PUBLISHED_SIZES, 4))
    assert mixed < equal
    # The real-valued optimum costs the geometric mean. Whole bits lie on the chords of 4^-b, at
    # most max (1 - 3x/4) 4^x = 1.264 above the curve; greedy adds its 0.1 %.
    optimum = continuous_bits(layers, 4)
    assert 2 <= min(optimum.values()) <= max(optimum.values()) <= 8  # so nothing was clipped
    real = sum(layer.parameters * layer.variance * 4 ** -optimum[layer.name] for layer in layers)
    assert real <= mixed <= real * 1.264 * 1.001


def layers_without_a_common_unit():
    random = np.random.default_rng(5)
    return [
        LayerStatistics(layer.name, layer.parameters + int(random.integers(99_999)), layer.variance)
        for layer in published_layers(5)
    ]


def test_sizes_without_a_common_unit_are_solved_too():
    layers = layers_without_a_common_unit()
    assert math.gcd(*(layer.parameters for layer in layers)) == 1
    exact = allocate_exact(layers, 3.5)
    assert 2 * stored_bits(layers, exact) <= 7 * sum(layer.parameters for layer in layers)
    greedy = predicted_distortion(layers, allocate(layers, 3.5))
    bound = lagrangian_bound(layers, 3.5)
    assert bound * (1 - 1e-12) <= predicted_distortion(layers, exact) < greedy


def test_equal_layers_get_equal_bits():
    layers = [LayerStatistics(name, size, 0.02) for name, size in PUBLISHED_SIZES.items()]
    assert set(allocate(layers, 4).values()) == {4}
    assert set(allocate_exact(layers, 4).values()) == {4}


@given(layer_lists, budgets)
@settings(deadline=None)
def test_the_continuous_optimum_spends_the_budget_at_equal_gain(layers, budget):
    optimum = continuous_bits(layers, budget)
    total = sum(layer.parameters for layer in layers)
    mean = math.fsum(layer.parameters * optimum[layer.name] for layer in layers) / total
    assert mean == pytest.approx(budget, abs=1e-9)
    largest = max(layer.variance for layer in layers) or 1.0
    gains = [
        math.log2(max(layer.variance / largest, VARIANCE_FLOOR)) - 2 * optimum[layer.name]
        for layer in layers
    ]
    assert max(gains) - min(gains) == pytest.approx(0, abs=1e-9)


def test_bits_are_taken_back_where_clipping_overshoots():
    # b* is about 11.3 and -5.3; clipped to 8 and 2 it would take 10 of the 6 bits.
    layers = layers_of([1, 1], [1.0, 1e-10])
    assert allocate(layers, 3) == {"layer.0": 4, "layer.1": 2}


def test_all_zero_layers_take_what_others_leave():
    layers = layers_of([4, 4, 4], [0.0, 1.0, 0.0])
    assert allocate(layers, 2.67) == {"layer.0": 2, "layer.1": 4, "layer.2": 2}
    assert allocate(layers, 5)["layer.1"] == 8
    assert allocate(layers_of([3, 3], [0.0, 0.0]), 2.5) == {"layer.0": 3, "layer.1": 2}


def test_the_budget_is_the_decimal_that_was_written():
    # As binary doubles these are a hair below: 2.3 * 10 would round down to 22, 4.35 to 434.
    assert affordable_bits(layers_of([1, 9], [1, 1]), 2.3, 2, 8) == 23
    assert affordable_bits(layers_of([1, 99], [1, 1]), 4.35, 2, 8) == 435
    assert allocate(layers_of([1, 9], [1.0, 0.0]), 2.3) == {"layer.0": 5, "layer.1": 2}
    # Whole units only: half of 2 * 1000 parameters is no use.
    assert affordable_bits(layers_of([1000, 1000], [1, 1]), 2.25, 2, 8) == 4000


@pytest.mark.parametrize("function", [allocate, allocate_exact, lagrangian_bound])
@pytest.mark.parametrize(("budget", "nearest"), [(1.5, "2"), (8.5, "8"), (math.nan, "")])
def test_a_budget_outside_the_bounds_is_refused(function, budget, nearest):
    with pytest.raises(UsageError) as caught:
        function(layers_of([1, 2], [1.0, 1.0]), budget)
    assert caught.value.hint.startswith(f"the nearest feasible budget is {nearest}")


@pytest.mark.parametrize("function", [allocate, allocate_exact, lagrangian_bound])
def test_no_layer_or_one_listed_twice_is_refused(function):
    with pytest.raises(ValueError, match="no layer"):
        function([], 4)
    layer = LayerStatistics("twin", 1, 1.0)
    with pytest.raises(ValueError, match="twin is listed twice"):
        function([layer, layer], 4)


@pytest.mark.parametrize(
    ("parameters", "variance"), [(0, 1.0), (1, -1.0), (1, math.nan), (1, math.inf)]
)
def test_statistics_are_checked(parameters, variance):
    with pytest.raises(ValueError, match=r"odd\.layer"):
        LayerStatistics("odd.layer", parameters, variance)


def test_a_search_that_grows_too_large_says_so(monkeypatch):
    # One state per layer is what the answer itself takes; this case needs many more.
    monkeypatch.setattr(exact_allocation, "MAXIMUM_STATES", 2 * len(PUBLISHED_SIZES))
    with pytest.raises(ResourceError, match=r"transformer_blocks\.") as caught:
        allocate_exact(layers_without_a_common_unit(), 3.5)
    assert caught.value.exit_code == 5
