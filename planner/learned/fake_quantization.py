"""Rounding that gradients go through.

What is computed is what a pack will hold or a kernel will do, to the last float32 rounding. The
gradient is that of the value before rounding (straight-through estimator; Bengio et al. 2013,
arXiv 1308.3432), clipped where the quantizer clips; steps get theirs through the values that they
divide and multiply (LSQ; Esser et al. 2020, arXiv 1902.08153).
"""

import torch
from torch import Tensor


def fake_quantize(values: Tensor, scale: Tensor, bits: int) -> Tensor:
    """``values`` [..., n] through the quantizer of ``bits`` bits with steps ``scale`` [...].

    As `artifacts.codec.gaussian_quantizer` does it: 2^bits levels half a step beside the whole
    ones. Where a step is 0 everything is 0.
    """
    half = 2 ** (bits - 1)
    steps = scale[..., None]
    divided = values / torch.where(steps > 0, steps, torch.inf)
    # Values beyond the outermost level are clipped to it and have no gradient of their own.
    clipped = divided.clamp(0.5 - half, half - 0.5)
    levels = (divided.detach() + half).floor().clamp(0, 2 * half - 1) - half + 0.5
    return (clipped + (levels - clipped).detach()) * steps


def rounded_to(values: Tensor, rounded: Tensor) -> Tensor:
    """``rounded``, with the gradient of ``values``."""
    return values + (rounded - values).detach()
