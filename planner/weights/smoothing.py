"""Smoothing: scale every input channel so that activations and weights share the difficulty.

    x Wᵀ = (x / s) (W diag(s))ᵀ,      s_i = max|x_i|^alpha / max|w_i|^(1 - alpha)

From SmoothQuant (arXiv 2211.10438, Eq. 4); SVDQuant (arXiv 2411.05007) smooths before it takes out
the global factors. Like SVDQuant this searches for each layer's alpha; the criterion is ours: the
predicted error of the layer's output, from channel statistics alone.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from artifacts.codec.gaussian_quantizer import gaussian_level, step_rule
from schemas.bit_widths import UNQUANTIZED
from schemas.calibration import ChannelStatistics
from schemas.manifest import ScaleRule

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)

Quantize = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Smoothed weight [out, in] -> its residual after factors, and the error of the quantized one."""


def choose_smoothing(
    weight: Tensor,
    channels: ChannelStatistics,
    quantize: Quantize,
    *,
    activation_bits: int,
    activation_scale: ScaleRule,
) -> Tensor:
    """Find the smoothing vector with the least predicted output error; all ones is a candidate.

    Two errors add up. The weight's, ``sum_i E[x_i^2] / s_i^2 * |error[:, i]|^2``, and the
    activations', whose mean square in every channel is that of the token's quantizer, times the
    residual's squared norm: the factors see unquantized activations.

    Args:
        weight: float32 [out, in].
        channels: statistics of the layer's input.
        quantize: how the smoothed weight will be split and quantized.
        activation_bits: of the layer's input, 16 for unquantized.
        activation_scale: how a token's step is found.

    Returns:
        float32 [in], finite and positive.

    Raises:
        ValueError: the statistics have another number of channels.
    """
    maximum, mean_square = (
        torch.tensor(values, dtype=torch.float32, device=weight.device)
        for values in (channels.maximum, channels.mean_square)
    )
    if len(maximum) != weight.shape[1]:
        raise ValueError(f"statistics of {len(maximum)} channels for a weight of {weight.shape[1]}")

    def predicted_error(smoothing: Tensor) -> float:
        residual, error = quantize(weight * smoothing)
        power = mean_square / smoothing.square()
        of_weight = (error.square().sum(0) * power).sum(dtype=torch.float64)
        noise = token_noise(power, maximum / smoothing, activation_bits, activation_scale)
        of_activations = noise * residual.square().sum(dtype=torch.float64)
        return float(of_weight + of_activations)

    candidates = [torch.ones_like(maximum)]
    candidates += [smoothing_vector(weight, maximum, alpha) for alpha in ALPHAS]
    return min(candidates, key=predicted_error)


def smoothing_vector(weight: Tensor, maximum: Tensor, alpha: float) -> Tensor:
    """``s`` for one alpha, float32 [in], scaled to a geometric mean of 1.

    A channel that is always zero, in the input or in the weight, keeps 1.
    """
    largest = weight.abs().amax(0)
    alive = (maximum > 0) & (largest > 0)
    if not bool(alive.any()):
        return torch.ones_like(maximum)
    # Logarithms in float64: no power of any float32 overflows there.
    logs = alpha * maximum[alive].double().log() - (1 - alpha) * largest[alive].double().log()
    smoothing = torch.ones_like(maximum)
    # Bounded, so that squares of the vector and of its inverse stay within float32.
    smoothing[alive] = (logs - logs.mean()).exp().clamp(1e-6, 1e6).float()
    return smoothing


def token_noise(power: Tensor, maximum: Tensor, bits: int, rule: ScaleRule) -> float:
    """Mean square of the error that quantizing a token adds to each of its channels.

    Args:
        power: mean square of every channel [in].
        maximum: largest magnitude of every channel [in].
        bits: of the activations, 16 for unquantized.
        rule: how the token's step is found. By ``gaussian`` the error is kappa times the mean
            square. Otherwise the step leaves no value, or few, outside the levels, and the error
            is spread evenly over it.
    """
    if bits == UNQUANTIZED:
        return 0.0
    mean_square = float(power.mean())
    if rule == "gaussian":
        return gaussian_level(bits).mse * mean_square
    weights = step_rule(rule, bits)
    step = weights.of_rms * math.sqrt(mean_square) + weights.of_peak * float(maximum.max())
    return step * step / 12
