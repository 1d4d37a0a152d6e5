"""How tokens are quantized while a network learns: with learned bounds, and in groups.

A pack finds the step of every token at run time, by a rule over its values. A learned bound is a
factor on that step: below 1 it clips the token's largest values and resolves the others better.
Methods that learn a static bound, per layer or per layer and timestep, become a factor per layer,
or per layer and timestep.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from artifacts.codec.gaussian_quantizer import row_scales
from planner.learned.fake_quantization import fake_quantize
from planner.learned.timed_bits import step_of
from schemas.manifest import ScaleRule

Bounds = Literal["fixed", "per-layer", "per-timestep"]


class TokenQuantizer(nn.Module):
    """The quantizer of one layer's tokens.

    Args:
        rule: how a token, or a group of one, finds its step.
        bounds: whether there is a factor on the step, and how many.
        steps: of the sampling loop.
        factor: of the pack, on every step.

    Attributes:
        log_bound: logarithm of the factor, [1] or [steps]; None without.
        group: how many neighbouring channels share a step; None for the whole token.
    """

    def __init__(
        self,
        rule: ScaleRule,
        bounds: Bounds = "fixed",
        steps: int = 1,
        *,
        factor: float = 1.0,
    ) -> None:
        super().__init__()
        self._rule: ScaleRule = rule
        self._factor = factor
        self.group: int | None = None
        count = {"fixed": 0, "per-layer": 1, "per-timestep": steps}[bounds]
        self.log_bound = nn.Parameter(torch.zeros(count)) if count else None

    def forward(self, tokens: Tensor, bits: int) -> Tensor:
        """Tokens [..., n] through the quantizer of ``bits`` bits (`TimedBits` for the timestep)."""
        grouped = in_groups(tokens, self.group)
        scale = row_scales(grouped, bits, self._rule, self._factor)
        if self.log_bound is not None:
            scale = scale * self.log_bound[step_of(bits) if len(self.log_bound) > 1 else 0].exp()
        return fake_quantize(grouped, scale, bits).reshape(tokens.shape)

    def factor(self) -> float:
        """The factor on the step of every token, where there is one; what a pack holds.

        Raises:
            ValueError: there is one for every timestep.
        """
        if self.log_bound is None:
            return self._factor
        if len(self.log_bound) > 1:
            raise ValueError("no pack holds a bound for every timestep")
        return self._factor * float(self.log_bound.detach().exp())


def in_groups(rows: Tensor, group: int | None) -> Tensor:
    """``rows`` [..., n] as [..., n / group, group], each of which has a step of its own."""
    return rows if group is None else rows.unflatten(-1, (-1, group))
