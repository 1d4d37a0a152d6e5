"""Whole bits under one budget or several: least predicted error, by what a bit removes per price.

Item i with b bits costs ``c_i κ(b)`` of error (κ of the Gaussian quantizer) and ``s_ij b`` of every
budget j. From the least bits on, single bits are given where they remove most error per price,
until none fits. κ falls ever less steeply, so with one budget this is the optimum but for what the
last bit does not fill. Several budgets are joined to one price, ``sum_j α_j s_ij / S_j``; the best
of a range of α is taken.

Budgets are integers, and ties go by position, so a result neither overspends by a rounding nor
depends on the machine.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor, fsum

from artifacts.codec.gaussian_quantizer import gaussian_level
from schemas.errors import UsageError

PRICES = 16
"""Ways to join two budgets to one price, beside each budget alone."""


@dataclass(frozen=True)
class Budget:
    """What bits may cost in one respect.

    Attributes:
        sizes: cost of one bit of every item, at least 1; bytes, or multiply-accumulates.
        mean_bits: largest mean, weighted by ``sizes``; counts as the decimal number that was
            written.
    """

    sizes: Sequence[int]
    mean_bits: float

    @property
    def allowed(self) -> int:
        """Largest sum of ``sizes * bits``, exactly."""
        return floor(Fraction(repr(float(self.mean_bits))) * sum(self.sizes))


def allocate_widths(
    costs: Sequence[float],
    budgets: Sequence[Budget],
    *,
    minimum_bits: int,
    maximum_bits: int,
) -> list[int]:
    """Choose every item's bits.

    Args:
        costs: c of every item, not negative.
        budgets: one or two, each with a size of every item.
        minimum_bits: fewest bits of an item.
        maximum_bits: most bits of an item, at most 8.

    Returns:
        Bits of every item; each budget's mean is kept.

    Raises:
        UsageError: a budget lies outside the bounds.
    """
    for budget in budgets:
        if not minimum_bits <= budget.mean_bits <= maximum_bits:
            raise UsageError(
                f"a mean of {budget.mean_bits:g} bits cannot be met with {minimum_bits} to"
                f" {maximum_bits} bits each"
            )
    bounds = minimum_bits, maximum_bits
    if len(budgets) == 1:
        return _greedy(costs, budgets, [1.0], *bounds)
    found = [
        _greedy(costs, budgets, [share, 1 - share], *bounds)
        for share in (step / PRICES for step in range(PRICES + 1))
    ]
    return min(found, key=lambda bits: predicted_error(costs, bits))


def predicted_error(costs: Sequence[float], bits: Sequence[int]) -> float:
    """``sum c_i κ(b_i)``; an item of 16 bits has none."""
    return fsum(c * _kappa(b) for c, b in zip(costs, bits, strict=True) if b <= 8)


def _kappa(bits: int) -> float:
    return gaussian_level(bits).mse


def _greedy(
    costs: Sequence[float],
    budgets: Sequence[Budget],
    shares: Sequence[float],
    minimum_bits: int,
    maximum_bits: int,
) -> list[int]:
    totals = [sum(budget.sizes) for budget in budgets]
    left = [
        budget.allowed - minimum_bits * total for budget, total in zip(budgets, totals, strict=True)
    ]
    prices = [
        fsum(
            share * budget.sizes[item] / total
            for share, budget, total in zip(shares, budgets, totals, strict=True)
        )
        for item in range(len(costs))
    ]
    bits = [minimum_bits] * len(costs)
    gains = [_kappa(b) - _kappa(b + 1) for b in range(minimum_bits, maximum_bits)]
    queue = [(-costs[i] * gains[0] / prices[i], i) for i in range(len(costs))] if gains else []
    heapq.heapify(queue)
    while queue:
        _, item = heapq.heappop(queue)
        sizes = [budget.sizes[item] for budget in budgets]
        if any(size > rest for size, rest in zip(sizes, left, strict=True)):
            continue  # it will not fit later either
        left = [rest - size for size, rest in zip(sizes, left, strict=True)]
        bits[item] += 1
        if bits[item] < maximum_bits:
            gain = costs[item] * gains[bits[item] - minimum_bits] / prices[item]
            heapq.heappush(queue, (-gain, item))
    return bits
