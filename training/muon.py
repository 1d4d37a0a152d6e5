"""Muon (Jordan et al. 2024): momentum, made orthogonal by Newton-Schulz iterations.

torch has it as ``torch.optim.Muon``, but iterates in bfloat16, which takes a processor without such
units sixteen seconds a step for a network of ten million parameters. This one iterates in float32
there, and all matrices of one shape at once.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.device import autocast

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic a x + b x^3 + c x^5, as the authors tuned it: steepest at 0, near 1 around 1."""
ITERATIONS = 5
RMS = 0.2
"""Root mean square of an update at rate 1, that of AdamW (Liu et al. 2025)."""


class Muon(Optimizer):
    """Muon with Nesterov momentum, for matrices.

    Args:
        matrices: parameters [m, n].
        lr: an update's root mean square is ``RMS`` times this. A tensor where steps are captured
            in a CUDA graph.
        momentum: of the gradient.
        weight_decay: decoupled, per unit of ``lr``.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: float | Tensor,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(
            list(matrices), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; ``closure`` is not supported."""
        assert closure is None
        for group in self.param_groups:
            of_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    of_shape[parameter.shape].append(parameter)
            for parameters in of_shape.values():
                self._step(parameters, group)

    def _step(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Update parameters of one shape."""
        states = [self.state[parameter] for parameter in parameters]
        for state, parameter in zip(states, parameters, strict=True):
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
        momenta: list[Tensor] = [state["momentum"] for state in states]
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        moved = torch._foreach_lerp(gradients, momenta, group["momentum"])
        # An orthogonal [m, n] has root mean square 1 / sqrt(max(m, n)).
        size = RMS * max(parameters[0].shape) ** 0.5
        updates = orthogonal(torch.stack(moved)) * (group["lr"] * size)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_sub_(parameters, updates.unbind())


def orthogonal(matrices: Tensor) -> Tensor:
    """Nearly the nearest orthogonal matrices of [k, m, n]: singular values end in 0.7 ... 1.2."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    with autocast(matrices.device):
        for _ in range(ITERATIONS):
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)
