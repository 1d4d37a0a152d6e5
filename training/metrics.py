"""What a result is judged by, beside FSIM: fidelity, colour, detail."""

import numpy as np
import numpy.typing as npt

from training.fsim import fsim, luminance

Picture = npt.NDArray[np.float32]
"""[3, H, W], 0 ... 1."""


def psnr_db(result: Picture, truth: Picture) -> float:
    """Peak signal-to-noise ratio in dB."""
    return float(-10 * np.log10(np.mean((result - truth) ** 2)))


def colour_difference(result: Picture, truth: Picture) -> float:
    """Mean CIEDE2000; 1 is about what an eye can just tell apart."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    labs = [rgb2lab(picture.transpose(1, 2, 0)) for picture in (result, truth)]
    return float(deltaE_ciede2000(*labs).mean())


def upper_octave_power(picture: Picture) -> float:
    """Power of the luminance between half the Nyquist frequency and Nyquist.

    A Hann window keeps the crop's edges from counting as detail.
    """
    plane = luminance(picture) / 255
    window = np.outer(np.hanning(plane.shape[0]), np.hanning(plane.shape[1]))
    power = np.abs(np.fft.fft2((plane - plane.mean()) * window)) ** 2
    fy, fx = np.meshgrid(np.fft.fftfreq(plane.shape[0]), np.fft.fftfreq(plane.shape[1]))
    radius = np.hypot(fy, fx).T
    return float(power[(radius >= 0.25) & (radius < 0.5)].sum())


def flat_patch_deviation(result: Picture, truth: Picture, side: int = 24) -> tuple[float, float]:
    """Standard deviation of result and truth inside the truth's flattest square, in 1/255."""
    planes = [luminance(picture) for picture in (result, truth)]
    tops = range(0, planes[1].shape[0] - side + 1, side // 2)
    lefts = range(0, planes[1].shape[1] - side + 1, side // 2)
    squares = [(slice(t, t + side), slice(u, u + side)) for t in tops for u in lefts]
    flattest = min(squares, key=lambda square: planes[1][square].std())
    return float(planes[0][flattest].std()), float(planes[1][flattest].std())


def measure(result: Picture, truth: Picture) -> dict[str, float]:
    """All of them, by name."""
    flat, truth_flat = flat_patch_deviation(result, truth)
    return {
        "psnr_db": psnr_db(result, truth),
        "fsim": fsim(luminance(result), luminance(truth)),
        "ciede2000": colour_difference(result, truth),
        "upper_octave": upper_octave_power(result) / upper_octave_power(truth),
        "flat_deviation": flat,
        "truth_flat_deviation": truth_flat,
    }
