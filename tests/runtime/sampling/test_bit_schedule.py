"""Timesteps find their column of the bit grid."""

import pytest

from runtime.sampling.bit_schedule import BitSchedule, constant_bits
from schemas.bit_grid import BitGrid, LayerBits, MeanBitWidths
from schemas.errors import UsageError

GRID = BitGrid(
    target=MeanBitWidths(weight_bits=4, activation_bits=4),
    timesteps=(1000.0, 500.0, 100.0),
    layers={
        "a": LayerBits(weight_bits=4, activation_bits=(3, 4, 5)),
        "b": LayerBits(weight_bits=2, activation_bits=(6, 4, 2)),
    },
)


def test_calibrated_timesteps_have_their_own_bits():
    schedule = BitSchedule(GRID)
    assert [schedule(t) for t in GRID.timesteps] == [
        {"a": 3, "b": 6},
        {"a": 4, "b": 4},
        {"a": 5, "b": 2},
    ]


def test_any_other_timestep_uses_the_nearest():
    schedule = BitSchedule(GRID)
    assert schedule(760.0)["a"] == 3
    assert schedule(740.0)["a"] == 4
    assert schedule(0.0)["a"] == 5
    assert schedule(750.0)["a"] == 3  # a tie goes to the earlier step


def test_one_width_replaces_the_grid():
    constant = constant_bits(BitSchedule(GRID), 8)
    assert (constant(0.0), constant(999.0)) == ({"a": 8, "b": 8}, {"a": 8, "b": 8})
    with pytest.raises(UsageError, match="1 to 8"):
        constant_bits(BitSchedule(GRID), 9)
