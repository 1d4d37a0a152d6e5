"""Errors of detail: too little of it, detail where there is none, and detail that repeats.

Squared and absolute errors are least for the mean of all pictures that are possible, which is
blurred: detail in the wrong place costs twice. Two errors ask how much detail there is.

- **Gradient similarity**, pixel by pixel, of the magnitudes (Xue et al. 2014, GMSD, whose map this
  is; Scharr's operator and constant as in FSIM).
- **Spectrum**: power by frequency in windows of 32 px, mean over windows, then the logarithm.

Contrast without frequencies is not to be asked for: where a latent says nothing of what lies inside
its pixels, a decoder that shall have contrast repeats coarse structure on the pixel grid, in
columns and rows of dots. Power by frequency sees them, as they lie at a few frequencies.

Whoever asks for power gets it where there shall be none, too, as speckle in flat fields, as single
bright dots, in ragged edges and as a weave of dots. One error looks at each: **quiet error** at the
deviation where the truth hardly has any, **overshoot error** at what is brighter or darker than
anything that is wanted nearby, **ragged error** at steepness along the truth's edges, and **weave
error** at what of the error repeats with the latent's pixels.

Then **pattern error**, what of the error repeats with the network's patches: an eye sees a weave
where a mean over all pixels sees next to nothing.

All of these look at the mean of the three channels, so that their gradients change no colour.
**Colour error** looks at nothing else: where others pull much harder than squared error, it is what
holds brightness and colour of whole fields.
"""

from collections.abc import Sequence
from functools import cache

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
QUIET_PX = (8, 24)
"""Windows of flat fields."""
QUIET_DEVIATION = 3 / 255
"""Of a window that counts half."""
NEARBY_PX = 5
EDGE_PX = 9
"""Windows in which an edge has one direction."""
EDGE_FLOOR = (2 / 255) ** 2
"""Energy of gradients along an edge that is straight enough."""
LATENT_PX = 4
PERIOD_PX = 8
"""Of the patches: two latent pixels of 4 px each."""
COLOUR_PX = 32
"""Fields whose colour is compared."""


def gradient_difference(found: Tensor, wanted: Tensor) -> Tensor:
    """One minus the similarity of gradients, at full and half size added up.

    Args:
        found: pictures [n, 3, H, W], -1 ... 1.
        wanted: likewise.

    Returns:
        A value for every picture [n], as the other errors.
    """
    first, second = _gray(found), _gray(wanted)
    total = first.new_zeros(len(first))
    for scale in range(2):
        if scale:
            first, second = F.avg_pool2d(first, 2), F.avg_pool2d(second, 2)
        a, b = _gradient(first), _gradient(second)
        similar = (2 * a * b + GRADIENT_CONSTANT) / (a * a + b * b + GRADIENT_CONSTANT)
        total = total + (1 - similar).mean(dim=(1, 2))
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
    return (first - second).abs().mean(dim=(1, 2))


def quiet_error(found: Tensor, wanted: Tensor) -> Tensor:
    """How much more than ``wanted`` deviates where that hardly does: speckle in flat fields.

    Standard deviations in windows of `QUIET_PX`; the logarithm of their quotient where it is
    positive, weighted by ``1 / (1 + (deviation / QUIET_DEVIATION)^2)`` of what is wanted.

    Args:
        found: pictures [n, 3, H, W], -1 ... 1, of at least the largest window.
        wanted: likewise.
    """
    first, second = _gray(found), _gray(wanted)
    total = first.new_zeros(len(first))
    for side in QUIET_PX:
        a, b = (_variance(pictures, side) for pictures in (first, second))
        weight = 1 / (1 + b / QUIET_DEVIATION**2)
        more = ((a + QUIET**2).log() - (b + QUIET**2).log()).relu() / 2
        total = total + (weight * more).mean(dim=(1, 2))
    return total


def overshoot_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean square of what lies above or below all of ``wanted`` nearby: bright and dark dots.

    Nearby is up to `NEARBY_PX` // 2 pixels away, so that detail in a slightly wrong place is none.
    Arguments as above.
    """
    first, second = _gray(found), _gray(wanted)
    high, low = (
        sign * F.max_pool2d(sign * second, NEARBY_PX, stride=1, padding=NEARBY_PX // 2)
        for sign in (1, -1)
    )
    beyond = (first - high).relu() + (low - first).relu()
    return beyond.square().mean(dim=(1, 2, 3))


def ragged_error(found: Tensor, wanted: Tensor) -> Tensor:
    """How much steeper than ``wanted`` it is along the edges of ``wanted``: teeth and stair-steps.

    `along_edges` where it is positive, by its weights. Arguments as above.
    """
    weight, quotient = along_edges(found, wanted)
    return (weight * quotient.relu()).mean(dim=(1, 2))


def along_edges(found: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Steepness along the edges of ``wanted``, by that of ``wanted``.

    Args:
        found: pictures [n, 3, H, W], -1 ... 1.
        wanted: likewise.

    Returns:
        For windows of `EDGE_PX`: weights [n, k, k'], 0 ... 1, by how much of a window's gradients
        have one direction (coherence of the structure tensor; Bigün and Granlund 1987) and how
        steep they are; and the logarithm of the quotient, of root mean squares of the gradient
        along that direction's edge.
    """
    first, second = (_structure(_gray(pictures)) for pictures in (found, wanted))
    trace = second[0] + second[1] + TINY
    across, skew = second[0] - second[1], 2 * second[2]
    length = (across.square() + skew.square()).sqrt()
    weight = (length / trace).square() * trace / (trace + GRADIENT_CONSTANT)

    def along(xx: Tensor, yy: Tensor, xy: Tensor) -> Tensor:
        steepest = ((xx - yy) * across + 2 * xy * skew) / length.clamp_min(TINY)
        return (xx + yy - steepest).clamp_min(0) / 2 + EDGE_FLOOR

    return weight, (along(*first) / along(*second)).log() / 2


def weave_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean square of what of the error repeats every `LATENT_PX` pixels in windows of `WINDOW_PX`.

    A decoder that shall have power, and no dots that stand out, weaves dots on the grid of its
    latent. Arguments as above.
    """
    error = (found - wanted).mean(dim=1) / 2
    windows = error.unfold(1, WINDOW_PX, WINDOW_PX // 2).unfold(2, WINDOW_PX, WINDOW_PX // 2)
    blocks = windows.unflatten(4, (-1, LATENT_PX)).unflatten(3, (-1, LATENT_PX))
    pattern = blocks.mean(dim=(3, 5))  # [n, k, k', 4, 4]
    pattern = pattern - pattern.mean(dim=(3, 4), keepdim=True)
    return pattern.square().mean(dim=(1, 2, 3, 4))


def pattern_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean square of the error's mean over all blocks of `PERIOD_PX`, without the block's own mean.

    Sides of the pictures are multiples of it; arguments as above.
    """
    error = (found - wanted).mean(dim=1)
    blocks = error.unflatten(2, (-1, PERIOD_PX)).unflatten(1, (-1, PERIOD_PX))
    pattern = blocks.mean(dim=(1, 3))  # [n, 8, 8]
    return (pattern - pattern.mean(dim=(1, 2), keepdim=True)).square().mean(dim=(1, 2))


def colour_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean square of the error's means over fields of `COLOUR_PX`, channel by channel.

    Arguments as above, of at least such a field.
    """
    return F.avg_pool2d((found - wanted) / 2, COLOUR_PX).square().mean(dim=(1, 2, 3))


def balanced(picture: Tensor, base: Tensor, others: Sequence[tuple[float, Tensor]]) -> Tensor:
    """``base`` and ``others``, each of which pulls at ``picture`` with so many times its force.

    However small a loss is: only one that is exactly 0 does not pull. So what is weighed is which
    pixels it asks to change, and a loss has to say by itself what is not worth asking for.

    Args:
        picture: what all the losses were computed from.
        base: a loss, scalar.
        others: a factor and a loss each; the factor is the norm of the weighted loss's gradient by
            that of ``base``.
    """
    (pull,) = torch.autograd.grad(base, picture, retain_graph=True)
    total = base
    for factor, loss in others:
        (own,) = torch.autograd.grad(loss, picture, retain_graph=True)
        total = total + factor * pull.norm() / own.norm().clamp_min(1e-12) * loss
    return total


def _gray(pictures: Tensor) -> Tensor:
    """[n, 3, H, W], -1 ... 1, to [n, 1, H, W], 0 ... 1."""
    return pictures.mean(dim=1, keepdim=True) / 2 + 0.5


def _gradient(gray: Tensor) -> Tensor:
    """Magnitudes [n, H - 2, W - 2]."""
    both = F.conv2d(gray, _scharr(gray.device, gray.dtype))
    return (both.square().sum(dim=1) + TINY).sqrt()


def _structure(gray: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Structure tensor: means of the gradients' products xx, yy and xy [n, k, k']."""
    x, y = F.conv2d(gray, _scharr(gray.device, gray.dtype)).unbind(1)
    products = torch.stack([x * x, y * y, x * y], dim=1)
    xx, yy, xy = F.avg_pool2d(products, EDGE_PX, stride=EDGE_PX // 3).unbind(1)
    return xx, yy, xy


@cache
def _scharr(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Both directions [2, 1, 3, 3]; made once, as a CUDA graph cannot copy from the processor."""
    with torch.inference_mode(False):  # whoever asks first, gradients may be wanted later
        across = torch.tensor([[3, 0, -3], [10, 0, -10], [3, 0, -3]], device=device, dtype=dtype)
        return torch.stack([across, across.mT])[:, None] / 16


def _variance(gray: Tensor, side: int) -> Tensor:
    """Of windows [n, k, k'] that overlap by half."""
    windows = gray[:, 0].unfold(1, side, side // 2).unfold(2, side, side // 2)
    return (windows - windows.mean(dim=(3, 4), keepdim=True)).square().mean(dim=(3, 4))


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
