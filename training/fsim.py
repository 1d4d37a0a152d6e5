"""FSIM, the feature similarity index (Zhang, Zhang, Mou and Zhang 2011, IEEE TIP 20/8).

Two pictures are alike where their phase congruency and their gradient magnitude are; places count
by their phase congruency, which is large at edges and corners, whatever their contrast. Phase
congruency is Kovesi's (1999), with log-Gabor filters of 4 scales and 4 orientations, as in the
paper. Luminance only.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.ndimage import convolve

Plane = npt.NDArray[np.float64]
"""Luminance [H, W], 0 ... 255."""

SCALES, ORIENTATIONS = 4, 4
SMALLEST_WAVELENGTH_PX = 6.0
SCALE_RATIO = 2.0
RADIAL_SPREAD = 0.55
"""Ratio of the Gaussian's spread to the centre frequency, on a logarithmic axis."""
ANGULAR_SPREAD = np.pi / ORIENTATIONS / 1.2
NOISE_DEVIATIONS = 2.0
CONGRUENCY_CONSTANT = 0.85
GRADIENT_CONSTANT = 160.0
TINY = 1e-4


def fsim(first: Plane, second: Plane) -> float:
    """FSIM of two luminance planes whose shorter side is under 384 px.

    The paper's authors shrink larger ones first, which is left out here.
    """
    congruency = phase_congruency(first), phase_congruency(second)
    gradient = _gradient(first), _gradient(second)
    similar = _similarity(*congruency, CONGRUENCY_CONSTANT)
    similar = similar * _similarity(*gradient, GRADIENT_CONSTANT)
    weight = np.maximum(*congruency)
    return float((similar * weight).sum() / weight.sum())


def luminance(image: npt.NDArray[np.float32]) -> Plane:
    """Luma of an RGB picture [3, H, W], 0 ... 1, in 0 ... 255."""
    return np.asarray(255 * np.tensordot([0.299, 0.587, 0.114], image, axes=1), np.float64)


def _similarity(first: Plane, second: Plane, constant: float) -> Plane:
    return np.asarray((2 * first * second + constant) / (first**2 + second**2 + constant))


def _gradient(plane: Plane) -> Plane:
    """Magnitude by the Scharr operator."""
    scharr = np.array([[3, 0, -3], [10, 0, -10], [3, 0, -3]]) / 16
    return np.hypot(
        convolve(plane, scharr, mode="constant"), convolve(plane, scharr.T, mode="constant")
    )


def phase_congruency(plane: Plane) -> Plane:
    """Phase congruency [H, W], 0 ... 1."""
    spectrum = np.fft.fft2(plane)
    energy_sum, amplitude_sum = np.zeros_like(plane), np.full_like(plane, TINY)
    for filters in _log_gabor(plane.shape):
        responses = np.fft.ifft2(spectrum * filters)  # [SCALES, H, W]: even + i odd
        amplitudes = np.abs(responses)
        total = responses.sum(axis=0)
        direction = total / (np.abs(total) + TINY)  # the mean phase
        along = (responses * direction.conj()).sum(axis=0)
        across = np.abs((responses * direction.conj()).imag).sum(axis=0)
        energy = along.real - across
        energy_sum += np.maximum(energy - _noise_level(amplitudes[0], filters), 0)
        amplitude_sum += amplitudes.sum(axis=0)
    return np.asarray(energy_sum / amplitude_sum)


def _noise_level(smallest: Plane, filters: Plane) -> float:
    """Energy that noise alone would give, told from the finest scale's median amplitude.

    Amplitudes of noise are Rayleigh distributed: their median squared is ln 4 times half the mean
    square. Noise is taken as white, so that its energy at other scales follows from the filters.
    """
    mean_square = np.median(smallest**2) / np.log(2)
    noise_power = mean_square / (filters[0] ** 2).sum()
    impulses = np.fft.ifft2(filters).real * np.sqrt(filters[0].size)
    own = (impulses**2).sum()
    cross = (impulses.sum(axis=0) ** 2).sum() - own
    total_square = 2 * noise_power * own + 2 * noise_power * cross
    rayleigh = np.sqrt(max(total_square, 0.0) / 2)
    mean = rayleigh * np.sqrt(np.pi / 2)
    deviation = rayleigh * np.sqrt(2 - np.pi / 2)
    # 1.7 is the paper authors' empirical reduction for energies weighted by phase deviation.
    return float((mean + NOISE_DEVIATIONS * deviation) / 1.7)


@lru_cache(maxsize=4)
def _log_gabor(shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Filters in the frequency domain [ORIENTATIONS, SCALES, H, W]."""
    fy, fx = np.meshgrid(np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1]), indexing="ij")
    radius = np.hypot(fx, fy)
    radius[0, 0] = 1.0
    theta = np.arctan2(-fy, fx)
    low_pass = 1 / (1 + (radius / 0.45) ** 30)  # a Butterworth cut of the corners
    radial = []
    for scale in range(SCALES):
        centre = 1 / (SMALLEST_WAVELENGTH_PX * SCALE_RATIO**scale)
        gain = np.exp(-(np.log(radius / centre) ** 2) / (2 * np.log(RADIAL_SPREAD) ** 2))
        gain[0, 0] = 0.0
        radial.append(gain * low_pass)
    filters = []
    for orientation in range(ORIENTATIONS):
        angle = orientation * np.pi / ORIENTATIONS
        off = np.abs(np.angle(np.exp(1j * (theta - angle))))
        spread = np.exp(-(off**2) / (2 * ANGULAR_SPREAD**2))
        filters.append([gain * spread for gain in radial])
    return np.asarray(filters)
