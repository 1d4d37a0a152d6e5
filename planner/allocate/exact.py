"""The bit allocation of ``vasmp`` solved exactly, to show what greedy gives away.

Minimise the sum of ``N * variance * 4^-b`` over whole bits b, with the sum of ``N * b`` within the
budget: a multiple-choice knapsack. A dynamic programme over the layers keeps, of all partial
allocations, only those that might still win:

- *Dominance*: of two partial allocations, one that takes no less storage and has no less
  distortion is dropped. The sizes of a transformer's layers are small multiples of one unit
  (hidden width squared), so few different totals, hence few survivors, exist.
- *Bound*: a partial allocation is dropped when even the Lagrangian bound of the layers to come
  leaves it worse than the greedy allocation, which is known from the start. With hundreds of
  layers greedy and bound nearly meet, so almost everything is dropped; for sizes with no common
  unit this is what keeps the search small.

No solver tolerance is involved: storage is counted in int64, and float rounding can at most keep
an allocation that might have been dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.allocate.vasmp import (
    MAXIMUM_BITS,
    MINIMUM_BITS,
    VARIANCE_FLOOR,
    LayerStatistics,
    affordable_bits,
    allocate,
    bit_gain,
    by_name,
    give_bits,
    predicted_distortion,
)
from schemas.errors import ResourceError

BOUND_SLACK = 1e-11
"""Upper bound of the relative rounding error of a sum of 10^5 non-negative doubles."""

NEGLIGIBLE = 1e-290
"""Distortions this small are subnormal in part, where the relative slack no longer holds."""

MAXIMUM_STATES = 2_000_000
"""Partial allocations remembered over all layers. Each takes 16 bytes to trace back, and up to
seven candidates of about 60 bytes while its layer is worked on: under 1 GB at worst. Measured on
log-normal variances (60 cases each): at most 3,137 for the 585 layers of the published network, and
1.1 million when its sizes are perturbed so that they have no common unit."""

Storage = NDArray[np.int64]
Distortion = NDArray[np.float64]


@dataclass(frozen=True)
class _Choices:
    """How the survivors after one layer came about: index of the parent, bits of the layer."""

    parent: NDArray[np.int64]
    bits: NDArray[np.int64]


class _RemainingBound:
    """Least distortion of the layers from ``start`` on, as a function of storage left to them.

    Convex and piecewise linear: the fractional knapsack of ``vasmp.lagrangian_bound``, for all
    amounts of storage at once.
    """

    def __init__(
        self, layers: Sequence[LayerStatistics], minimum_bits: int, maximum_bits: int
    ) -> None:
        steps = [
            (-bit_gain(layer, bits), index)
            for index, layer in enumerate(layers)
            for bits in range(minimum_bits, maximum_bits)
        ]
        steps.sort()
        self._gain = np.array([-gain for gain, _ in steps])
        self._layer = np.array([index for _, index in steps], dtype=np.int64)
        sizes = np.array([layer.parameters for layer in layers], dtype=np.int64)
        self._storage = sizes[self._layer]
        self._floor = np.array(
            [layer.parameters * bit_gain(layer, maximum_bits) for layer in layers]
        )

    def __call__(self, start: int, storage: Storage) -> Distortion:
        """Evaluate for the layers ``start ...`` at every entry of ``storage``, beyond b_min."""
        ahead = self._layer >= start
        size = self._storage[ahead]
        removed = 0.75 * size * self._gain[ahead]
        spent = np.concatenate([[0], np.cumsum(size)])
        # Summed from the far end: adding small to large never cancels, as subtracting would.
        left = np.concatenate([np.cumsum(removed[::-1])[::-1], [0.0]]) + self._floor[start:].sum()
        bound: Distortion = np.interp(storage, spent, left)
        return bound


def allocate_exact(
    layers: Sequence[LayerStatistics],
    budget_bits: float,
    *,
    minimum_bits: int = MINIMUM_BITS,
    maximum_bits: int = MAXIMUM_BITS,
    variance_floor: float = VARIANCE_FLOOR,
) -> dict[str, int]:
    """Choose every layer's weight bits so that the predicted distortion is the least possible.

    Same arguments, result and invariants as ``vasmp.allocate``; ``variance_floor`` only shapes
    the greedy allocation that the search starts from.

    Raises:
        UsageError: the budget lies outside the bounds.
        ValueError: there is no layer, or two bear the same name.
        ResourceError: too many partial allocations remain (many layers whose sizes have no common
            unit and whose greedy allocation is far from the bound).
    """
    greedy = allocate(
        layers,
        budget_bits,
        minimum_bits=minimum_bits,
        maximum_bits=maximum_bits,
        variance_floor=variance_floor,
    )
    # Large layers first: the bound is tightest while small layers, which can fill any gap in the
    # budget, are still to come.
    ordered = sorted(by_name(layers), key=lambda layer: -layer.parameters)
    allowed = affordable_bits(ordered, budget_bits, minimum_bits, maximum_bits)
    capacity = allowed - minimum_bits * sum(layer.parameters for layer in ordered)
    limit = predicted_distortion(ordered, greedy) * (1 + BOUND_SLACK) + NEGLIGIBLE
    remaining = _RemainingBound(ordered, minimum_bits, maximum_bits)
    options = np.arange(minimum_bits, maximum_bits + 1)

    storage: Storage = np.zeros(1, dtype=np.int64)  # beyond minimum_bits
    distortion: Distortion = np.zeros(1)
    history: list[_Choices] = []
    remembered = 0
    for index, layer in enumerate(ordered):
        error = np.array([layer.parameters * bit_gain(layer, int(bits)) for bits in options])
        # [options, states] -> flat; entry k comes from state k % states.
        storage_next = np.add.outer(layer.parameters * (options - minimum_bits), storage).ravel()
        distortion_next = np.add.outer(error, distortion).ravel()

        candidates = np.flatnonzero(storage_next <= capacity)
        hoped_for = distortion_next[candidates] + remaining(
            index + 1, capacity - storage_next[candidates]
        )
        candidates = candidates[hoped_for <= limit]
        candidates = candidates[np.lexsort((distortion_next[candidates], storage_next[candidates]))]
        best_so_far = np.minimum.accumulate(distortion_next[candidates])
        improves = np.ones(len(candidates), dtype=bool)
        improves[1:] = best_so_far[1:] < best_so_far[:-1]
        survivors = candidates[improves]
        remembered += len(survivors)
        if remembered > MAXIMUM_STATES:
            raise ResourceError(
                f"exact allocation: more than {MAXIMUM_STATES:,} partial allocations by layer"
                f" {layer.name}",
                hint="use the greedy allocator; its gap to the lower bound is reported",
            )
        history.append(_Choices(survivors % len(storage), options[survivors // len(storage)]))
        storage, distortion = storage_next[survivors], distortion_next[survivors]

    bits: dict[str, int] = {}
    state = len(storage) - 1  # survivors descend in distortion: the last is the optimum
    for layer, choices in zip(reversed(ordered), reversed(history), strict=True):
        bits[layer.name] = int(choices.bits[state])
        state = int(choices.parent[state])
    # Dominance leaves bits of no value (all-zero layers) unspent; spend them as greedy does.
    give_bits(ordered, bits, allowed, maximum_bits)
    return dict(sorted(bits.items()))
