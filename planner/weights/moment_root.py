"""The second moment of a layer's inputs, damped, by a root of its inverse.

An error ``E`` of a weight is one of ``tr(E M Eᵀ)`` in the layer's output, summed over its inputs,
with their second moment ``M = E[x xᵀ]``. With ``M⁻¹ = Uᵀ U`` that is ``|E U⁻¹|²``: in numbers
that are divided by U, all errors count alike.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

DAMPING = 0.1
"""Of the moment's mean diagonal element, added to all of them: about what activations of 2 bits add
to the inputs, and less that holds for the measured pictures alone. GPTQ's authors take 0.01."""
MOST_DAMPING = 1.0


@dataclass(frozen=True, eq=False)
class MomentRoot:
    """A moment that can be divided by.

    Attributes:
        moment: as measured, symmetric, float32 [in, in]; of any scale.
        damping: share of its mean diagonal element that is added to the diagonal.
        upper: U of ``M⁻¹ = Uᵀ U``, upper triangular, float32 [in, in]; M is `damped`.
    """

    moment: Tensor
    damping: float
    upper: Tensor

    @classmethod
    def of(cls, moment: Tensor, damping: float = DAMPING) -> "MomentRoot | None":
        """The root of ``moment``; None for no inputs at all, or none that are finite.

        More damping is tried where the moment is too near to singular for float32.
        """
        if not float(moment.diagonal().mean()) > 0:
            return None
        while True:
            lower, failed = torch.linalg.cholesky_ex(_damped(moment, damping))
            if not int(failed):
                inverse = torch.cholesky_inverse(lower)
                del lower  # of 6144 inputs each takes 150 MB
                upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
                if not int(failed):
                    return cls(moment, damping, upper)
            if damping >= MOST_DAMPING:
                return None
            damping = min(10 * damping, MOST_DAMPING) if damping else DAMPING

    def damped(self) -> Tensor:
        """``M``: with a mean diagonal element of 1, and the damping added to all of them."""
        return _damped(self.moment, self.damping)

    def whitened(self, rows: Tensor) -> Tensor:
        """``rows U⁻¹`` of ``rows`` [n, in]; its squared norm is ``tr(rows M rowsᵀ)``."""
        return torch.linalg.solve_triangular(self.upper, rows, upper=True, left=False)


def _damped(moment: Tensor, damping: float) -> Tensor:
    damped = moment / moment.diagonal().mean()
    damped.diagonal().add_(damping)
    return damped
