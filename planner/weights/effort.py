"""How hard a build looks for the factors and the rounding of a weight, for how much time."""

from dataclasses import dataclass
from typing import Literal

EffortName = Literal["fast", "normal", "thorough"]


@dataclass(frozen=True)
class Effort:
    """Bounds of both searches.

    Attributes:
        tolerance: factors are good enough when better ones are expected to take no more than this
            share from the energy of what they leave; 0.001 are 0.004 dB. Global and local factors
            may each be off by as much.
        all_shapes: whether every block shape of the local factors is tried, instead of the one that
            is predicted to capture most.
        search_rounding: whether GPTQ, where it rounds, goes on to search (`planner.weights.gptq`).
        fits: how many times global factors are fitted to what rounding left, where they are
            (`planner.weights.output_fit`); the residual is rounded as often.
    """

    tolerance: float
    all_shapes: bool = False
    search_rounding: bool = False
    fits: int = 2


EFFORTS: dict[EffortName, Effort] = {
    "fast": Effort(tolerance=0.01, fits=1),
    "normal": Effort(tolerance=0.0013),
    "thorough": Effort(tolerance=0.00002, all_shapes=True, search_rounding=True, fits=4),
}
