"""Exponential averages of a model's weights, several decays side by side.

Which decay is best depends on how long a run was; keeping a few costs memory only, and the best is
chosen by evaluation.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Averages:
    """Averages of all parameters of a model.

    Args:
        model: its present parameters are where every average starts.
        decays: of the averages; one of 1 - 1/n remembers about n steps.

    Early steps use the smaller decay (1 + step) / (10 + step), so that random initial weights are
    forgotten at once.
    """

    def __init__(self, model: nn.Module, decays: Iterable[float]) -> None:
        self.of_decay = {
            decay: {name: p.detach().clone() for name, p in model.named_parameters()}
            for decay in decays
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the parameters after ``step``, counted from 0."""
        parameters = list(model.parameters())  # walking over the modules costs a millisecond
        for decay, average in self.of_decay.items():
            weight = 1 - min(decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(average.values()), parameters, weight)

    def copy_to(self, model: nn.Module, decay: float) -> None:
        """Overwrite the parameters of ``model`` with the average of ``decay``."""
        model.load_state_dict(self.of_decay[decay], strict=False)

    def state_dict(self) -> dict[str, Any]:
        """State, by decay as text."""
        return {repr(decay): average for decay, average in self.of_decay.items()}

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Restore every average that this object has and ``state`` has."""
        for decay, average in self.of_decay.items():
            for name, tensor in state.get(repr(decay), {}).items():
                average[name].copy_(tensor)
