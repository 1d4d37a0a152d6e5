"""Bits that say at which step they hold, and are the pack's bits otherwise."""

from planner.learned.timed_bits import TimedBits, TimedSchedule, step_of
from runtime.sampling.bit_schedule import BitSchedule
from schemas.bit_grid import BitGrid, LayerBits, MeanBitWidths


def grid():
    layers = {
        "a": LayerBits(weight_bits=4, activation_bits=(4, 6, 8)),
        "b": LayerBits(weight_bits=4, activation_bits=(16, 4, 4)),
    }
    return BitGrid(
        target=MeanBitWidths(weight_bits=4, activation_bits=6),
        timesteps=(900.0, 500.0, 100.0),
        layers=layers,
    )


def test_a_schedule_has_the_packs_bits_and_the_nearest_column():
    plain, timed = BitSchedule(grid()), TimedSchedule(grid())
    assert timed.steps == 3
    for timestep, step in ((1000, 0), (720, 0), (480, 1), (0, 2)):
        assert timed(timestep) == plain(timestep)
        assert {step_of(bits) for bits in timed(timestep).values()} == {step}


def test_they_count_as_numbers():
    bits = TimedBits(4, 2)
    assert (bits, 2**bits, hash(bits)) == (4, 16, hash(4))
    assert step_of(bits) == 2
    assert step_of(4) == 0
