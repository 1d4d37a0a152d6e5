"""Where in the spectrum a latent's error lies: relative error by octave of spatial frequency.

A mean squared error says little of fine detail, which has little power: a network may lose all of
it and still stand well. The top octave is the finest detail, from half the highest frequency on.
"""

import math

import torch
from torch import Tensor

from benchmarks.cases import EXACT_DB

OCTAVES = ("fine", "middle", "coarse")
"""From half of the highest frequency on, from a quarter on, and all below."""


def octave_errors_db(reference: Tensor, other: Tensor) -> dict[str, float]:
    """``10 log10`` of signal over error, by octave; at most EXACT_DB.

    Args:
        reference: [..., h, w].
        other: of the same shape.

    Returns:
        ``octave_fine_db``, ``octave_middle_db``, ``octave_coarse_db``; an octave without signal is
        left out, as are those that a latent is too small for.
    """
    signal, noise = (
        torch.fft.fft2(values.double()).abs().square().flatten(0, -3).sum(0)
        for values in (reference, reference.double() - other.double())
    )
    height, width = signal.shape
    frequency = torch.maximum(
        torch.fft.fftfreq(height).abs()[:, None], torch.fft.fftfreq(width).abs()[None]
    )
    bounds = (math.inf, 0.25, 0.125, 0.0)
    found = {}
    for octave, high, low in zip(OCTAVES, bounds, bounds[1:], strict=False):
        inside = (frequency >= low) & (frequency < high)
        power, error = float(signal[inside].sum()), float(noise[inside].sum())
        if power > 0:
            db = 10 * math.log10(power / error) if error else EXACT_DB
            found[f"octave_{octave}_db"] = min(db, EXACT_DB)
    return found
