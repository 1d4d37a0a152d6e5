"""Learning rate: warm-up, a stable stretch of any length, decay (WSD; Hu et al. 2024, MiniCPM).

The stable stretch has no planned end, so a run can be prolonged by days and sessions; the decay
wins the last part of the quality and is run from the stable state whenever a model is wanted.
"""

import time
from dataclasses import dataclass
from typing import Protocol

DECAY_SHARE = 0.3
"""Of a run that is planned by time."""


class Schedule(Protocol):
    """Factor on the peak learning rate, by step; a run ends where it is 0."""

    @property
    def decay_start(self) -> int | None:
        """First step of the decay; None where that is not known or there is none."""

    def __call__(self, step: int) -> float:
        """Return the factor at ``step``, from 0."""


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
        """Return the factor at ``step``, from 0; it is 0 from ``steps`` on."""
        rise = min((step + 1) / (self.warmup + 1), 1.0)
        fall = min((self.steps - step) / (self.decay + 1), 1.0)
        return max(0.0, min(rise, fall))

    @property
    def decay_start(self) -> int | None:
        """First step of the decay; None without one."""
        return self.steps - self.decay if self.decay else None


class WithinTime:
    """The same over a given time, whatever the pace: for a GPU that is rented by the minute.

    Args:
        minutes: wall time from the first call to the end.
        warmup: steps of linear rise at the start.
        decay_share: share of the time in which the rate falls to zero.
    """

    def __init__(
        self, minutes: float, *, warmup: int = 200, decay_share: float = DECAY_SHARE
    ) -> None:
        self.minutes, self.warmup, self.decay_share = minutes, warmup, decay_share
        self._began: float | None = None

    def __call__(self, step: int) -> float:
        """Return the factor at ``step`` now; it is 0 once the time is over."""
        now = time.monotonic()
        if self._began is None:
            self._began = now
        left = 1 - (now - self._began) / (self.minutes * 60)
        rise = min((step + 1) / (self.warmup + 1), 1.0)
        return max(0.0, min(rise, left / self.decay_share))

    @property
    def decay_start(self) -> None:
        """Not known in steps."""
