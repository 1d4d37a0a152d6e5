"""VaTMP: the dynamic programme against brute force, and what its answer must always keep to."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.allocate.vatmp import LAYERS_AT_ONCE, activation_distortion, allocate_timesteps
from schemas.errors import UsageError


def runs(bits):
    return 1 + sum(a != b for a, b in itertools.pairwise(bits))


def brute_force(v, budget, minimum, maximum, segments):
    """The least (distortion, bits spent) of all allocations."""
    allowed = math.floor(Fraction(str(budget)) * len(v))
    return min(
        (activation_distortion(v, bits), sum(bits))
        for bits in itertools.product(range(minimum, maximum + 1), repeat=len(v))
        if sum(bits) <= allowed and runs(bits) <= segments
    )


@settings(max_examples=150, deadline=None)
@given(
    v=st.lists(
        st.sampled_from([0.0, 1e-9, 0.02, 0.5, 1.0, 1.1, 3.0, 40.0]), min_size=1, max_size=5
    ),
    budget=st.sampled_from([2, 2.2, 2.5, 3, 3.3, 4, 4.75, 5]),
    segments=st.integers(1, 6),
)
def test_equals_brute_force(v, budget, segments):
    found = allocate_timesteps({"a": v}, budget, maximum_bits=5, segments=segments)["a"]
    distortion, spent = brute_force(v, budget, 2, 5, segments)
    assert activation_distortion(v, found) == pytest.approx(distortion, rel=1e-12, abs=1e-300)
    assert runs(found) <= segments
    if distortion > 0 and 0.0 not in v:
        assert sum(found) <= spent  # of equally good ones, that with the fewest bits
    assert sum(found) <= Fraction(str(budget)) * len(v)


def test_equals_brute_force_with_all_seven_widths():
    v = [9.0, 2.5, 0.3, 4.0]
    for segments in (1, 2, 3, 4):
        found = allocate_timesteps({"a": v}, 5, segments=segments)["a"]
        assert activation_distortion(v, found) == pytest.approx(
            brute_force(v, 5, 2, 8, segments)[0], rel=1e-12
        )


def trajectories(layers, steps, seed=0):
    rng = np.random.default_rng(seed)
    values = np.exp(0.3 * rng.normal(size=(layers, steps)).cumsum(1))
    return {f"layer.{i}": row.tolist() for i, row in enumerate(values)}


@pytest.mark.parametrize("budget", [2, 3.3, 4, 7.9, 8])
def test_budget_segments_and_bounds_hold_on_long_trajectories(budget):
    found = allocate_timesteps(trajectories(5, 40), budget)
    for bits in found.values():
        assert sum(bits) <= Fraction(str(budget)) * 40
        assert runs(bits) <= 5
        assert min(bits) >= 2
        assert max(bits) <= 8


def test_more_segments_are_never_worse_and_uniform_bits_are_never_better():
    v = trajectories(1, 30)["layer.0"]
    losses = [
        activation_distortion(v, allocate_timesteps({"a": v}, 4, segments=s)["a"])
        for s in (1, 2, 3, 5, 8, 29, 30, 99)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(activation_distortion(v, [4] * 30))
    assert losses[3] < 0.98 * losses[0]
    assert losses[-1] == losses[-2]


def test_layers_do_not_influence_one_another_however_many_there_are():
    many = trajectories(LAYERS_AT_ONCE + 3, 12)
    together = allocate_timesteps(many, 4)
    assert list(together) == list(many)
    for name in ("layer.0", f"layer.{LAYERS_AT_ONCE}", f"layer.{LAYERS_AT_ONCE + 2}"):
        assert together[name] == allocate_timesteps({name: many[name]}, 4)[name]


def test_the_scale_of_the_activations_does_not_matter():
    v = trajectories(1, 20)["layer.0"]
    scaled = {"big": [x * 2.0**60 for x in v], "small": [x * 2.0**-60 for x in v], "v": v}
    assert len(set(allocate_timesteps(scaled, 4).values())) == 1


def test_the_budget_counts_as_the_decimal_number_that_was_written():
    # In binary 4.1 * 40 is just under 164.
    v = trajectories(1, 40)["layer.0"]
    assert sum(allocate_timesteps({"a": v}, 4.1, segments=40)["a"]) == 164


def test_a_layer_that_is_fed_zeros_gets_the_fewest_bits():
    assert allocate_timesteps({"a": [0.0] * 4}, 6)["a"] == (2, 2, 2, 2)


def test_no_layers_no_bits():
    assert allocate_timesteps({}, 4) == {}


@pytest.mark.parametrize(
    ("budget", "options", "said"),
    [(1.9, {}, "1.9"), (8.1, {}, "8.1"), (4, {"segments": 0}, "0 segments")],
)
def test_what_cannot_be_met_is_refused(budget, options, said):
    with pytest.raises(UsageError, match=said):
        allocate_timesteps({"a": [1.0]}, budget, **options)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_damaged_statistic_names_its_layer(value):
    with pytest.raises(ValueError, match=r"layer b"):
        allocate_timesteps({"a": [1.0, 2.0], "b": [1.0, value]}, 4)


def test_layers_must_agree_on_the_timesteps():
    with pytest.raises(ValueError, match="timesteps"):
        allocate_timesteps({"a": [1.0], "b": [1.0, 2.0]}, 4)
