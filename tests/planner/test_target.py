"""Targets: what parses, and what a wrong one is answered with."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.target import Target, parse_target
from schemas.errors import UsageError


@pytest.mark.parametrize(
    ("text", "weight_bits", "activation_bits"),
    [
        ("W4A4", 4, 4),
        ("w3.5a4", 3.5, 4),
        ("W4A16", 4, 16),
        ("w2A8", 2, 8),
        ("W8a2", 8, 2),
        ("W2.25A7.5", 2.25, 7.5),
        ("W04A16.0", 4, 16),
    ],
)
def test_reads_a_target(text, weight_bits, activation_bits):
    assert parse_target(text) == Target(weight_bits, activation_bits)


def test_whole_numbers_stay_whole():
    target = parse_target("W4.0A4")
    assert isinstance(target.weight_bits, int)
    assert target.to_schema().model_dump_json() == '{"weight_bits":4,"activation_bits":4}'
    assert parse_target("W3.5A16").to_schema().weight_bits == 3.5


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("W1A4", "W2A4"),
        ("W9A4", "W8A4"),
        ("W0A0", "W2A2"),
        ("W1.99A4", "W2A4"),
        ("W8.01A8", "W8A8"),
        ("W4A12", "W4A16"),  # half way: up, which loses no quality
        ("W4A11.9", "W4A8"),
        ("W4A9", "W4A8"),
        ("W4A15", "W4A16"),
        ("W4A32", "W4A16"),
        ("W4A1", "W4A2"),
        ("W16A16", "W8A16"),
        ("W" + "9" * 5000 + "A4", "W8A4"),
    ],
)
def test_an_impossible_target_names_the_nearest(text, nearest):
    with pytest.raises(UsageError, match="cannot be reached") as caught:
        parse_target(text)
    assert caught.value.exit_code == 2
    assert caught.value.hint == f"the nearest feasible target is {nearest}"
    assert len(str(caught.value)) < 250
    assert str(parse_target(nearest)) == nearest


@pytest.mark.parametrize(
    "text",
    ["", "W4", "A4W4", "4/4", "W-4A4", "W4A", "W4A4 ", "W4A4\n", "W4A4A4", "W4.A4", "WnanA4",
     "W1e0A4", "W٤A٤", "x" * 9999],
)  # fmt: skip
def test_garbage_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match="is not a bit target") as caught:
        parse_target(text)
    assert caught.value.exit_code == 2
    assert "W4A4" in caught.value.hint
    assert len(str(caught.value)) < 100


def test_a_budget_outside_the_layers_bounds_is_impossible():
    assert parse_target("W3A4", minimum_weight_bits=3).weight_bits == 3
    with pytest.raises(UsageError) as low:
        parse_target("W2.5A4", minimum_weight_bits=3)
    assert low.value.hint.endswith("W3A4")
    with pytest.raises(UsageError) as high:
        parse_target("W6.5A4", maximum_weight_bits=6)
    assert high.value.hint.endswith("W6A4")


bits = st.one_of(st.integers(2, 8), st.integers(200, 800).map(lambda n: n / 100))


@given(bits, bits | st.just(16))
@settings(deadline=None)
def test_writing_and_reading_agree(weight_bits, activation_bits):
    target = Target(weight_bits, activation_bits)
    assert parse_target(str(target)) == target
    assert parse_target(str(target).lower()) == target
