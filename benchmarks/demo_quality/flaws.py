"""What gives an enlarged picture away: speckle in flat fields, a weave, seams, drifting colours.

The network works on patches of ``PATCH_PX`` pixels, and in tiles where the picture is large; both
can be seen in the error, if they can be seen at all, as a line of its spectrum or as a jump.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from training.detail import along_edges
from training.fsim import Plane, luminance
from training.metrics import Picture

PATCH_PX = 8
"""Latent factor 4 times patch 2."""
LATENT_PX = 4
NEIGHBOURS = (3, 4, 5, 6)
"""Distances in bins of what a line is compared with; a Hann window spreads it over +-1."""
FLAT_LEVELS = 3.0
"""A square is a flat field where the truth's standard deviation is below, of 255 levels."""
SQUARE_PX, STRIDE_PX = 32, 8
"""Windows of `grid_images_db`."""
IMAGE_BINS = 3
"""How far images reach beside half the sampling rate and beside an axis."""
LEVELS_OF_NOISE = 0.5
"""Of 255: a floor for powers, so that flat crops count as equal and not as 0 / 0."""


def patch_peaks_db(result: Picture, truth: Picture) -> dict[str, float]:
    """How far lines at the patch's and the latent pixel's period stand out of the error's spectrum.

    Against the mean of the neighbouring bins' logarithms on either side, so that a power law gives
    0; mean of the horizontal and the vertical line. A line of noise has a standard deviation of
    5.6 dB, so only means over many crops say something.

    The same is given beside the lines, in rows and columns of the spectrum where nothing lies that
    repeats with the patches over the whole crop. Enlarged four times, 8 px are two pixels of the
    input: below that frequency a method knows, above it guesses, and where both meet the error has
    a crest, along all of the row or column. What of a line is beside it, too, is the crest's.

    Args:
        result: [3, H, W], whose sides are multiples of ``PATCH_PX``.
        truth: likewise.
    """
    error = luminance(result) - luminance(truth)
    window = np.outer(np.hanning(error.shape[0]), np.hanning(error.shape[1]))
    # A periodic window would be exact; Hann's is as good within 1 %.
    power = np.abs(np.fft.fft2((error - error.mean()) * window)) ** 2 + 1e-12
    found = {}
    for period in (PATCH_PX, LATENT_PX):
        on, beside = zip(*(_peaks_db(plane, period) for plane in (power, power.T)), strict=True)
        found[f"peak_{period}px_db"] = float(np.mean(on))
        found[f"beside_{period}px_db"] = float(np.mean(beside))
    return found


def _peaks_db(power: Plane, period: int) -> tuple[float, float]:
    """A peak along the first row of a spectrum, and the mean of those along rows near it."""
    rows = [sign * distance for distance in NEIGHBOURS for sign in (-1, 1)]
    return _peak_db(power[0], period), float(np.mean([_peak_db(power[r], period) for r in rows]))


def _peak_db(line: Plane, period: int) -> float:
    """A bin of one axis of the spectrum against its neighbours, in dB."""
    at = len(line) // period
    beside = [line[at + sign * distance] for distance in NEIGHBOURS for sign in (-1, 1)]
    return float(10 * (np.log10(line[at]) - np.mean(np.log10(beside))))


def grid_images_db(result: Picture, truth: Picture) -> float:
    """How far images of coarse structure on the pixel grid stand out of the highest frequencies.

    A decoder that enlarges a latent without knowing what lies inside its pixels repeats coarse
    structure at high frequencies: columns or rows of dots, every second pixel, wherever there is
    something to repeat (Odena, Dumoulin and Olah 2016, "Deconvolution and checkerboard artifacts").
    They change sign with the picture, so `patch_peaks_db`, which looks at the crop as a whole,
    does not see them; windows of 32 px do.

    Mean over frequencies near half the sampling rate along one axis and near zero along the other
    of the result's power by the truth's, in dB, less that over other frequencies as high (bins 13
    to 16 of 16 along either axis). Dots with another period, or along both axes, are not seen.

    Args:
        result: [3, H, W], of at least 32 px.
        truth: likewise.
    """
    ratio = _local_power(result) / _local_power(truth)
    bins = np.abs(np.fft.fftfreq(SQUARE_PX) * SQUARE_PX)
    low, high = np.minimum.outer(bins, bins), np.maximum.outer(bins, bins)
    finest = high >= SQUARE_PX // 2 - IMAGE_BINS
    images = finest & (low <= IMAGE_BINS)
    found = [float(np.mean(10 * np.log10(ratio[of]))) for of in (images, finest & ~images)]
    return found[0] - found[1]


def ragged_edges_db(result: Picture, truth: Picture) -> float:
    """How much steeper the result is along the truth's edges than the truth: teeth, stair-steps.

    Mean by the weights of `training.detail.along_edges`, whose positive part the bundled decoder is
    trained on. Softer edges are less steep along themselves, too, so that a blurred picture's is
    negative.

    Args:
        result: [3, H, W].
        truth: likewise.
    """
    weight, quotient = along_edges(*(torch.from_numpy(p)[None] * 2 - 1 for p in (result, truth)))
    total = float(weight.sum())
    return 20 / math.log(10) * float((weight * quotient).sum()) / total if total else 0.0


def _local_power(picture: Picture) -> Plane:
    """Mean power spectrum of all windows [32, 32]."""
    window = np.outer(np.hanning(SQUARE_PX), np.hanning(SQUARE_PX))
    squares = np.lib.stride_tricks.sliding_window_view(luminance(picture), window.shape)
    squares = squares[::STRIDE_PX, ::STRIDE_PX]
    squares = (squares - squares.mean(axis=(2, 3), keepdims=True)) * window
    power: Plane = np.mean(np.abs(np.fft.fft2(squares)) ** 2, axis=(0, 1))
    return power + LEVELS_OF_NOISE**2 * np.sum(window**2)


def colour_drift(result: Picture, truth: Picture) -> float:
    """Distance of the mean colours in the a*b* plane of CIELAB."""
    from skimage.color import rgb2lab  # noqa: PLC0415  (an extra)

    means = [rgb2lab(p.transpose(1, 2, 0))[..., 1:].mean(axis=(0, 1)) for p in (result, truth)]
    return float(np.linalg.norm(means[0] - means[1]))


def seam_ratio(result: Picture, truth: Picture, borders: Sequence[int]) -> float:
    """How much more the error jumps across tile borders than across other borders of patches.

    Mean absolute difference of the error on either side of a line, over all columns and rows in
    ``borders``, by that over lines between patches that lie a tile's patch or more from any.

    Args:
        result: [3, H, W], square.
        truth: likewise.
        borders: where tiles begin or end, in pixels; multiples of ``PATCH_PX``.
    """
    error = luminance(result) - luminance(truth)
    side = error.shape[0]
    far = [
        place
        for place in range(PATCH_PX, side, PATCH_PX)
        if all(abs(place - border) >= 2 * PATCH_PX for border in borders)
    ]
    found = []
    for plane in (error, error.T):
        jumps = np.abs(np.diff(plane, axis=0)).mean(axis=1)  # [k]: between rows k and k + 1
        found.append([np.mean([jumps[place - 1] for place in chosen]) for chosen in (borders, far)])
    at_borders, elsewhere = np.mean(found, axis=0)
    return float(at_borders / elsewhere)


@dataclass(frozen=True)
class FlatFields:
    """Flat squares of 24 px, one of every crop that has one.

    Attributes:
        crops: how many.
        deviation: mean standard deviation of the method inside them, of 255 levels.
        truth_deviation: the truth's.
        rough: share of them where it is more than 1.5 times the truth's.
    """

    crops: int
    deviation: float
    truth_deviation: float
    rough: float


def flat_fields(scores: Mapping[str, Mapping[str, float]], limit: float = 1.5) -> FlatFields:
    """Standard deviations inside the truth's flat fields."""
    pairs = np.array(
        [
            (values["flat_deviation"], values["truth_flat_deviation"])
            for values in scores.values()
            if values["truth_flat_deviation"] < FLAT_LEVELS
        ]
    )
    own, truth = pairs.mean(axis=0)
    rough = float((pairs[:, 0] > limit * pairs[:, 1]).mean())
    return FlatFields(len(pairs), float(own), float(truth), rough)
