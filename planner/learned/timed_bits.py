"""Activation bits that say at which step of the sampling loop they hold.

What a method learns for every timestep has to be found when a layer is applied, and the bits of a
timestep are what every layer gets as an argument. So the step travels with them.
"""

from runtime.network.projection import ActivationBits
from runtime.sampling.bit_schedule import BitSchedule
from schemas.bit_grid import BitGrid


class TimedBits(int):
    """A number of bits that has a ``step``, from 0: the column of the bit grid it comes from."""

    step: int

    def __new__(cls, bits: int, step: int) -> "TimedBits":
        """``bits`` at ``step``."""
        made = super().__new__(cls, bits)
        made.step = step
        return made


def step_of(bits: int) -> int:
    """The step of `TimedBits`; 0 of other numbers, as networks of one step have them."""
    return bits.step if isinstance(bits, TimedBits) else 0


class TimedSchedule:
    """A pack's bit schedule, with the step in every number.

    Args:
        grid: the pack's bit grid.

    Attributes:
        steps: number of columns of the grid.
    """

    def __init__(self, grid: BitGrid) -> None:
        self._grid = grid
        self.steps = len(grid.timesteps)
        schedule = BitSchedule(grid)
        self._columns = [
            {name: TimedBits(bits, step) for name, bits in schedule(timestep).items()}
            for step, timestep in enumerate(grid.timesteps)
        ]

    def __call__(self, timestep: float) -> ActivationBits:
        """Layer name -> activation bits at ``timestep`` (0 ... 1000), the nearest column's."""
        return self._columns[self._grid.nearest_step(timestep)]
