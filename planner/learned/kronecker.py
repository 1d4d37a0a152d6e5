"""A learned, invertible map of a layer's input: the Kronecker product of two small matrices.

FlatQuant (arXiv 2410.09426): inputs become ``x P``, weights ``W P⁻ᵀ``, which leaves ``x Wᵀ`` as it
was and flattens what is quantized. With ``P = P1 ⊗ P2`` and ``n = n1 n2`` it costs ``n (n1 + n2)``
multiplications a token and ``n1² + n2²`` numbers. Each factor is

    P_i = Q diag(exp d) R,      Q = (I - A)(I + A)⁻¹ (Cayley), A skew; likewise R,

so that its inverse takes no inversion of its own: ``Rᵀ diag(exp -d) Qᵀ``.
"""

import math

import torch
from torch import Tensor, nn


class KroneckerFactor(nn.Module):
    """One invertible matrix [n, n]; the identity at first."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.zeros(n, n))
        self.right = nn.Parameter(torch.zeros(n, n))
        self.log_diagonal = nn.Parameter(torch.zeros(n))

    def matrix(self) -> Tensor:
        """P, [n, n]."""
        return (cayley(self.left) * self.log_diagonal.exp()) @ cayley(self.right)

    def inverse_transposed(self) -> Tensor:
        """P⁻ᵀ, [n, n]: the same with the inverse diagonal."""
        return (cayley(self.left) * (-self.log_diagonal).exp()) @ cayley(self.right)


class KroneckerMap(nn.Module):
    """``P1 ⊗ P2`` of vectors [..., n]; the identity at first.

    Args:
        n: length of the vectors; its two factors are as equal as they can be.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.first, self.second = (KroneckerFactor(part) for part in nearest_factors(n))

    def inputs(self, x: Tensor) -> Tensor:
        """``x P`` of inputs [..., n]."""
        return _apply(x, self.first.matrix(), self.second.matrix())

    def weights(self, weight: Tensor) -> Tensor:
        """``W P⁻ᵀ`` of a weight [out, n]."""
        first, second = self.first.inverse_transposed(), self.second.inverse_transposed()
        return _apply(weight, first, second)


def cayley(values: Tensor) -> Tensor:
    """The orthogonal matrix of ``A = values - valuesᵀ``; [n, n]."""
    skew = values - values.T
    identity = torch.eye(len(skew), device=skew.device, dtype=skew.dtype)
    rotated: Tensor = torch.linalg.solve(identity + skew, identity - skew)
    return rotated


def nearest_factors(n: int) -> tuple[int, int]:
    """``n`` as a product of two numbers, the first at most the second, as near as there are."""
    first = next(part for part in range(math.isqrt(n), 0, -1) if n % part == 0)
    return first, n // first


def _apply(rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """``rows (first ⊗ second)`` [..., n]."""
    digits = rows.unflatten(-1, (len(first), len(second))) @ second
    # Two large products instead of many small ones.
    return (digits.transpose(-1, -2) @ first).transpose(-1, -2).flatten(-2)
