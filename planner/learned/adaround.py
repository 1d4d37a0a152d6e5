"""AdaRound: learning for every weight whether it is rounded down or up.

Nagel et al. 2020 (arXiv 2004.10568). A weight between two levels is ``lower + h(v)`` steps, with

    h(v) = clip(sigmoid(v) (zeta - gamma) + gamma, 0, 1)                     (Eq. 23)

and ``1 - |2 h - 1|^beta`` is added to the loss (Eq. 24), whose beta falls from 20 to 2: at first it
leaves h alone, except near 0 and 1, and in the end it drives every h there. The start is the weight
as it was before rounding. Levels are a pack's, half a step beside the whole ones.
"""

import torch
from torch import Tensor, nn

GAMMA, ZETA = -0.1, 1.1
"""The sigmoid is stretched over 0 and 1, so that h gets there."""
FIRST_BETA, LAST_BETA = 20.0, 2.0
WARM_UP = 0.2
"""Share of the steps without the regulariser."""


class AdaRound(nn.Module):
    """The rounding of one weight.

    Args:
        residual: what is rounded, float32 [out, in].
        step: of every row, float32 [out].
        bits: of the codes.

    Attributes:
        v: [out, in].
    """

    def __init__(self, residual: Tensor, step: Tensor, bits: int) -> None:
        super().__init__()
        self._bits = bits
        divisor = torch.where(step > 0, step, torch.inf)[:, None]
        position = residual / divisor + (2**bits - 1) / 2  # of level i: i
        lower = position.floor().clamp(0, 2**bits - 2)
        self.lower: Tensor
        self.register_buffer("lower", lower, persistent=False)
        # A little beside 0 and 1: there the stretched sigmoid is flat.
        between = (position - lower).clamp(0.01, 0.99)
        self.v = nn.Parameter(torch.logit((between - GAMMA) / (ZETA - GAMMA)))

    def up(self) -> Tensor:
        """How far every weight is rounded up, 0 ... 1 [out, in]: one of the two in the end."""
        return (self.v.sigmoid() * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    def weight(self, step: Tensor, *, soft: bool) -> Tensor:
        """The weight [out, in] at steps [out]: between levels while it learns, else on them."""
        up = self.up() if soft else (self.v >= 0).float()
        return (self.lower + up - (2**self._bits - 1) / 2) * step[:, None]

    @torch.no_grad()
    def codes(self) -> Tensor:
        """uint8 [out, in]."""
        return (self.lower + (self.v >= 0)).to(torch.uint8)

    def undecided(self, beta: float) -> Tensor:
        """The mean over weights of ``1 - |2 h - 1|^beta``: 0 where all are decided."""
        return (1 - (2 * self.up() - 1).abs().pow(beta)).mean()


def beta_at(progress: float) -> float | None:
    """The exponent at a share 0 ... 1 of the steps; None while there is no regulariser."""
    if progress < WARM_UP:
        return None
    left = 1 - (progress - WARM_UP) / (1 - WARM_UP)
    return LAST_BETA + (FIRST_BETA - LAST_BETA) * left
