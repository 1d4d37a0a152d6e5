"""The uniform scalar quantizer with 2^b levels, and its best step for a normal distribution.

Value of code c: ``step * (c - (2^b - 1) / 2)``, c = 0 ... 2^b - 1: symmetric, zero is not a level
(midrise). The outermost levels stand at ±clip, ``step = 2 clip / (2^b - 1)`` (Q-DiT4SR Eq. 2, 3).
Codes, scales and distortions of every backend are measured against this module.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from schemas.manifest import ScaleRule


@dataclass(frozen=True)
class GaussianLevel:
    """The best 2^b-level uniform quantizer of N(0, 1).

    Attributes:
        bits: b.
        clip: outermost level, A* in the paper.
        step: distance of neighbouring levels.
        mse: mean squared error, kappa(b) in the paper.
    """

    bits: int
    clip: float
    step: float
    mse: float


@lru_cache(maxsize=16)
def gaussian_level(bits: int) -> GaussianLevel:
    """The step that minimises the mean squared error on N(0, 1) (Eq. 18; Max 1960).

    Write the quantizer as ``step * q(x)`` with half-integers q. Its thresholds lie midway between
    levels, so moving them changes the error only to second order and the derivative vanishes where
    ``E[x q] = step * E[q^2]``. With phi the density and T(k) = P(x > k step), summing by parts,

        E[x q] = 2 (phi(0) / 2 + sum phi(k step)),   E[q^2] = 2 (1 / 8 + sum 2 k T(k)),

    k = 1 ... 2^(b-1) - 1. The left side minus the right falls from positive to negative on the
    bracket, so bisection finds the root; 60 halvings exhaust a double.

    Raises:
        ValueError: ``bits`` is not within 1 ... 8.
    """
    if not 1 <= bits <= 8:
        raise ValueError(f"a quantizer of {bits} bits; it must be 1 to 8")
    thresholds = range(1, 2 ** (bits - 1))

    def moments(step: float) -> tuple[float, float]:
        density = [math.exp(-0.5 * (k * step) ** 2) / math.sqrt(2 * math.pi) for k in thresholds]
        tail = [0.5 * math.erfc(k * step / math.sqrt(2)) for k in thresholds]
        correlation = 1 / math.sqrt(2 * math.pi) + 2 * math.fsum(density)
        energy = 0.25 + 4 * math.fsum(k * t for k, t in zip(thresholds, tail, strict=True))
        return correlation, energy

    low, high = 1e-4, 4.0
    for _ in range(60):
        step = (low + high) / 2
        correlation, energy = moments(step)
        low, high = (step, high) if correlation > step * energy else (low, step)
    correlation, energy = moments(step)
    mse = 1 - 2 * step * correlation + step * step * energy
    return GaussianLevel(bits, step * (2**bits - 1) / 2, step, mse)


@dataclass(frozen=True)
class StepRule:
    """A row's step as ``of_rms * sqrt(mean x^2) + of_peak * max |x|``.

    Attributes:
        of_rms: weight of the row's root mean square.
        of_peak: weight of the row's largest magnitude.
    """

    of_rms: float
    of_peak: float


@lru_cache(maxsize=1024)
def step_rule(rule: ScaleRule, bits: int, factor: float = 1.0) -> StepRule:
    """The step of a row by one of the manifest's rules, times ``factor``, a layer's own.

    ``gaussian`` is the best step for a normal distribution of the row's mean square (Eq. 2, 3).
    ``absmax`` puts the outermost level on the row's largest magnitude. ``blend``, ours, is halfway
    between them: a row with outliers needs a wider step than a normal one of its mean square, and
    one without a narrower.

    Raises:
        ValueError: ``bits`` is not within 1 ... 8.
    """
    gaussian, absmax = factor * gaussian_level(bits).step, factor * 2 / (2**bits - 1)
    if rule == "gaussian":
        return StepRule(gaussian, 0.0)
    if rule == "absmax":
        return StepRule(0.0, absmax)
    return StepRule(gaussian / 2, absmax / 2)


def row_scales(x: Tensor, bits: int, rule: ScaleRule = "gaussian", factor: float = 1.0) -> Tensor:
    """The step of every row of ``x`` [..., n], in its dtype [...]; see `step_rule`.

    Raises:
        ValueError: ``bits`` is not within 1 ... 8.
    """
    step = step_rule(rule, bits, factor)
    scale = x.new_zeros(x.shape[:-1])
    if step.of_rms:
        scale += x.square().mean(-1).sqrt_() * step.of_rms
    if step.of_peak:
        scale += x.abs().amax(-1) * step.of_peak
    return scale


def quantize_rows(
    x: Tensor, bits: int, rule: ScaleRule = "gaussian", factor: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Quantize every row of ``x`` [..., n] with a scale of its own, found by ``rule``.

    A row of zeros (by ``gaussian`` also: so small that its mean square is zero) has scale 0.

    Args:
        x: values; computed in float32, or in float64 for float64 input.
        bits: 1 ... 8.
        rule: how the scale is found; see `step_rule`.
        factor: on every scale.

    Returns:
        Codes uint8 [..., n] and scales float32 [...].

    Raises:
        ValueError: a value is not finite or too large for float32, or ``bits`` is out of range.
    """
    values = x if x.dtype == torch.float64 else x.float()
    scale = row_scales(values, bits, rule, factor).float()
    if not bool(torch.isfinite(scale).all()):
        raise ValueError("a value is not finite, or too large for a float32 scale")
    return encode_rows(values, scale, bits), scale


def encode_rows(x: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Codes of ``x`` [..., n] at scales float32 [...]: uint8 [..., n].

    A value on the border of two levels gets the upper one; a value beyond the outermost level gets
    that level; where the scale is 0 every value counts as 0.
    """
    # Codes are made for the scale as it is stored, rounded to float32.
    divisor = torch.where(scale > 0, scale, torch.inf)[..., None].to(x)
    codes = (x / divisor + 2 ** (bits - 1)).floor_().clamp_(0, 2**bits - 1)
    return codes.to(torch.uint8)


def dequantize_rows(codes: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Undo `quantize_rows` up to rounding: uint8 [..., n], float32 [...] -> float32 [..., n].

    Equals ``(codes - (2^b - 1) / 2) * scale``: half-integers are exact, so one rounding remains. A
    float64 scale gives float64 values.
    """
    levels: Tensor = codes.float() - (2**bits - 1) / 2
    return levels * scale[..., None]
