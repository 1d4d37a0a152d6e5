"""Which activation bits hold at a timestep: the bit grid's column of the nearest timestep."""

from collections.abc import Callable

from runtime.network.projection import ActivationBits
from runtime.sampling.settings import check_activation_bits
from schemas.bit_grid import BitGrid

BitsAt = Callable[[float], ActivationBits | None]
"""Timestep (0 ... 1000) -> activation bits of every quantized layer; None for no quantization."""


class BitSchedule:
    """Maps any timestep to the activation bits of every quantized layer.

    A sampler with another number of steps than the grid was calibrated with visits other
    timesteps; each uses the nearest calibrated one, so the mapping is total.

    Args:
        grid: the pack's bit grid.
    """

    def __init__(self, grid: BitGrid) -> None:
        self._grid = grid
        # One mapping per column, made once: a forward pass asks for it at every step.
        self._columns = [grid.at_step(index) for index in range(len(grid.timesteps))]

    def __call__(self, timestep: float) -> ActivationBits:
        """Return layer name -> activation bits at ``timestep`` (0 ... 1000)."""
        return self._columns[self._grid.nearest_step(timestep)]


def constant_bits(schedule: BitSchedule, bits: int) -> BitsAt:
    """A schedule of one width for every layer that ``schedule`` knows, at every timestep.

    Raises:
        UsageError: no such width.
    """
    check_activation_bits(bits)
    constant = dict.fromkeys(schedule(0.0), bits)
    return lambda _timestep: constant
