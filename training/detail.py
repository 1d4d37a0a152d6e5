"""Errors of detail that is there but not where the truth has it, and of detail that repeats.

Squared and absolute errors are least for the mean of all pictures that are possible, which is
blurred: detail in the wrong place costs twice. These two ask how much detail there is.

- **Gradient similarity**, pixel by pixel, of the magnitudes (Xue et al. 2014, GMSD, whose map this
  is; Scharr's operator and constant as in FSIM).
- **Spectrum**: power by frequency in windows of 32 px, mean over windows, then the logarithm.

Contrast without frequencies is not to be asked for: where a latent says nothing of what lies inside
its pixels, a decoder that shall have contrast repeats coarse structure on the pixel grid, in
columns and rows of dots. Power by frequency sees them, as they lie at a few frequencies.

A third, **pattern error**, is what of the error repeats with the network's patches: an eye sees a
weave where a mean over all pixels sees next to nothing.

All look at the mean of the three channels, so that their gradients change no colour.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

GRADIENT_CONSTANT = 160 / 255**2
"""For values in 0 ... 1."""
TINY = 1e-6
WINDOW_PX, STRIDE_PX = 32, 8
"""Of the local spectra."""
QUIET = 0.5 / 255
"""Standard deviation of white noise below which powers count as equal."""
PERIOD_PX = 8
"""Of the patches: two latent pixels of 4 px each."""


def gradient_difference(found: Tensor, wanted: Tensor) -> Tensor:
    """One minus the similarity of gradients, at full and half size added up.

    Args:
        found: pictures [n, 3, H, W], -1 ... 1.
        wanted: likewise.
    """
    first, second = _gray(found), _gray(wanted)
    total = first.new_zeros(())
    for scale in range(2):
        if scale:
            first, second = F.avg_pool2d(first, 2), F.avg_pool2d(second, 2)
        a, b = _gradient(first), _gradient(second)
        similar = (2 * a * b + GRADIENT_CONSTANT) / (a * a + b * b + GRADIENT_CONSTANT)
        total = total + (1 - similar).mean()
    return total


def spectrum_difference(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean difference of the logarithms of amplitude, frequency by frequency.

    Amplitude is the root of a window's power, mean over all windows of a picture and over 3 x 3
    neighbouring frequencies, of which those outside count as zero.

    Args:
        found: pictures [n, 3, H, W], -1 ... 1, of at least `WINDOW_PX`.
        wanted: likewise.
    """
    first, second = (_log_amplitude(_gray(pictures)) for pictures in (found, wanted))
    return (first - second).abs().mean()


def pattern_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean square of the error's mean over all blocks of `PERIOD_PX`, without the block's own mean.

    Sides of the pictures are multiples of it; arguments as above.
    """
    error = (found - wanted).mean(dim=1)
    blocks = error.unflatten(2, (-1, PERIOD_PX)).unflatten(1, (-1, PERIOD_PX))
    pattern = blocks.mean(dim=(1, 3))  # [n, 8, 8]
    return (pattern - pattern.mean(dim=(1, 2), keepdim=True)).square().mean()


def balanced(picture: Tensor, base: Tensor, others: Sequence[Tensor], weight: float) -> Tensor:
    """``base`` and ``others``, each of which pulls at ``picture`` with ``weight`` times its force.

    Args:
        picture: what all the losses were computed from.
        base: a loss, scalar.
        others: likewise.
        weight: norm of the gradient of each by that of ``base``.
    """
    (pull,) = torch.autograd.grad(base, picture, retain_graph=True)
    total = base
    for loss in others:
        (own,) = torch.autograd.grad(loss, picture, retain_graph=True)
        total = total + weight * pull.norm() / own.norm().clamp_min(1e-12) * loss
    return total


def _gray(pictures: Tensor) -> Tensor:
    """[n, 3, H, W], -1 ... 1, to [n, 1, H, W], 0 ... 1."""
    return pictures.mean(dim=1, keepdim=True) / 2 + 0.5


def _gradient(gray: Tensor) -> Tensor:
    """Magnitudes [n, H - 2, W - 2]."""
    across = gray.new_tensor([[3, 0, -3], [10, 0, -10], [3, 0, -3]]) / 16
    both = F.conv2d(gray, torch.stack([across, across.mT])[:, None])
    return (both.square().sum(dim=1) + TINY).sqrt()


def _log_amplitude(gray: Tensor) -> Tensor:
    """[n, 1, H, W] to [n, f, f'], every second frequency."""
    line = torch.hann_window(WINDOW_PX, device=gray.device)
    window = line[:, None] * line
    windows = gray.unfold(2, WINDOW_PX, STRIDE_PX).unfold(3, WINDOW_PX, STRIDE_PX)
    windows = (windows - windows.mean(dim=(-2, -1), keepdim=True)) * window
    power = torch.fft.rfft2(windows).abs().square().mean(dim=(2, 3))  # [n, 1, 32, 17]
    power = F.avg_pool2d(torch.fft.fftshift(power, dim=2), 3, stride=2, padding=1)
    floor = QUIET**2 * window.square().sum()
    return (power + floor).log()[:, 0] / 2
