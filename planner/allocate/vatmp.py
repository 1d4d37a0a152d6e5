"""VaTMP: how many bits a layer's activations get at every timestep (Q-DiT4SR, Sec. 3.4).

A b-bit Gaussian quantizer leaves an error of ``kappa(b) * v`` on values of mean square v. Each
layer on its own minimises the sum over timesteps of ``kappa(b_t) * v_t`` under
``sum b_t <= floor(B T)``, with b_t piecewise constant in at most S segments (Eq. 22, 23).

The minimum is found exactly by a dynamic programme over (bits spent, segments, last width), for
many layers at a time. Plain numbers in, plain numbers out; nothing here runs a network.
"""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from artifacts.codec.gaussian_quantizer import gaussian_level
from schemas.errors import UsageError

MINIMUM_BITS = 2
MAXIMUM_BITS = 8
SEGMENTS = 5
"""S (value ours): enough to follow a trajectory, few enough to read in the bit grid."""
USED_BELOW_BITS = 6
"""From this budget on activations are nearly lossless and VaTMP is off unless asked for."""
LAYERS_AT_ONCE = 64
"""Bounds the memory of the back-pointers: 40 steps of 64 layers at 4 bits take some 7 MB."""

Floats = NDArray[np.float64]


def allocate_timesteps(
    mean_squares: Mapping[str, Sequence[float]],
    budget_bits: float,
    *,
    minimum_bits: int = MINIMUM_BITS,
    maximum_bits: int = MAXIMUM_BITS,
    segments: int = SEGMENTS,
) -> dict[str, tuple[int, ...]]:
    """Allocate the activation bits of every layer and timestep.

    Args:
        mean_squares: layer name -> v_t of every timestep, finite and not negative.
        budget_bits: B, the largest mean over the timesteps; counts as the decimal number that was
            written, so 4.1 bits over 40 steps are exactly 164.
        minimum_bits: fewest bits at a timestep.
        maximum_bits: most bits at a timestep.
        segments: S; the number of timesteps or more leaves b_t free.

    Returns:
        Layer name -> bits per timestep. Of equally good ones that with the fewest bits.

    Raises:
        UsageError: the budget or the number of segments is out of range.
        ValueError: a mean square is not finite or negative, or layers differ in timesteps.
    """
    if segments < 1:
        raise UsageError(f"{segments} segments", hint="give at least 1")
    if not minimum_bits <= budget_bits <= maximum_bits:
        raise UsageError(
            f"a budget of {budget_bits:g} activation bits cannot be met with {minimum_bits} to"
            f" {maximum_bits} bits per timestep"
        )
    if not mean_squares:
        return {}
    names = list(mean_squares)
    steps = len(mean_squares[names[0]])
    if steps == 0 or any(len(values) != steps for values in mean_squares.values()):
        raise ValueError("layers differ in their number of timesteps, or have none")
    v = np.array([mean_squares[name] for name in names], dtype=np.float64)
    if not np.isfinite(v).all() or (v < 0).any():
        worst = int(np.argmin(np.where(np.isfinite(v), v, -np.inf).min(axis=1)))
        raise ValueError(f"layer {names[worst]}: a mean square is not finite, or negative")

    spare = math.floor(Fraction(repr(float(budget_bits))) * steps) - minimum_bits * steps
    kappa = np.array([gaussian_level(b).mse for b in range(minimum_bits, maximum_bits + 1)])
    chosen = [
        _solve(v[start : start + LAYERS_AT_ONCE], kappa, spare, segments) + minimum_bits
        for start in range(0, len(names), LAYERS_AT_ONCE)
    ]
    return {
        name: tuple(row.tolist()) for name, row in zip(names, np.concatenate(chosen), strict=True)
    }


def activation_distortion(mean_squares: Sequence[float], bits: Sequence[int]) -> float:
    """What allocation minimises: the sum over timesteps of ``kappa(b_t) * v_t``; 16 bits cost 0."""
    return math.fsum(
        v * gaussian_level(b).mse for v, b in zip(mean_squares, bits, strict=True) if b <= 8
    )


def _solve(v: Floats, kappa: Floats, spare: int, segments: int) -> NDArray[np.int64]:
    """Widths above the minimum, [layers, T], for mean squares ``v`` [layers, T].

    ``cost[l, s, e, w]`` is the least distortion of layer l's steps so far, having used s + 1
    segments (at most), e bits above the minimum, and width w at the last step. The next step stays
    in its segment, or starts another from the best width of any. Where segments do not bind, one
    s does for all and starting another costs nothing.
    """
    layers, steps = v.shape
    widths = len(kappa)
    free = segments >= steps
    kinds = 1 if free else segments
    most = min(spare, (widths - 1) * steps)  # no more can be spent
    cost = np.full((layers, kinds, most + 1, widths), np.inf)
    for w in range(min(widths, most + 1)):
        cost[:, 0, w, w] = kappa[w] * v[:, 0]

    # came_from[t, l, s, e, w]: the width before step t, plus ``widths`` where a segment starts.
    came_from = np.zeros((steps, layers, kinds, most + 1, widths), np.int8)
    for t in range(1, steps):
        cheapest = cost.argmin(axis=3).astype(np.int8)  # [layers, kinds, most + 1]
        switched = cost.min(axis=3)
        new = np.full_like(cost, np.inf)
        for w in range(min(widths, most + 1)):
            left = most + 1 - w  # values of e that w more bits fit on
            stay = cost[:, :, :left, w]
            if free:
                switch, source = switched[:, :, :left], cheapest[:, :, :left]
            else:
                switch = np.full_like(stay, np.inf)
                switch[:, 1:] = switched[:, :-1, :left]
                source = np.zeros(stay.shape, np.int8)
                source[:, 1:] = cheapest[:, :-1, :left] + widths
            better = switch < stay
            new[:, :, w:, w] = np.where(better, switch, stay) + (kappa[w] * v[:, t])[:, None, None]
            came_from[t, :, :, w:, w] = np.where(better, source, w)
        cost = new

    # Fewest bits first, so that argmin, which takes the first of equals, spends no bit in vain.
    by_bits = cost.transpose(0, 2, 1, 3).reshape(layers, -1)
    best = by_bits.argmin(axis=1)
    e, s, w = np.unravel_index(best, (most + 1, kinds, widths))
    rows = np.arange(layers)
    result = np.empty((layers, steps), np.int64)
    for t in range(steps - 1, -1, -1):
        result[:, t] = w
        before = came_from[t, rows, s, e, w].astype(np.int64)
        s, e, w = s - before // widths, e - w, before % widths
    return result
