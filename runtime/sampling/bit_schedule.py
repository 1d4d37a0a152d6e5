"""Which activation bits hold at a timestep: the bit grid's column of the nearest timestep."""

from runtime.network.projection import ActivationBits
from schemas.bit_grid import BitGrid


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
