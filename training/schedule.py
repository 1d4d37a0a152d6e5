"""Learning rate: warm-up, a stable stretch of any length, decay (WSD; Hu et al. 2024, MiniCPM).

The stable stretch has no planned end, so a run can be prolonged by days and sessions; the decay
wins the last part of the quality and is run from the stable state whenever a model is wanted.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class WarmupStableDecay:
    """Factor on the peak learning rate, by step.

    Attributes:
        steps: optimizer steps in all.
        warmup: steps of linear rise at the start.
        decay: steps of linear fall to zero at the end; 0 for a run that will be prolonged.
    """

    steps: int
    warmup: int = 200
    decay: int = 0

    def __call__(self, step: int) -> float:
        """Return the factor at ``step``, 0 ... ``steps`` - 1."""
        rise = min((step + 1) / (self.warmup + 1), 1.0)
        fall = min((self.steps - step) / (self.decay + 1), 1.0)
        return min(rise, fall)

    @property
    def decay_start(self) -> int:
        """First step of the decay."""
        return self.steps - self.decay
