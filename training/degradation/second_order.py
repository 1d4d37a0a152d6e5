"""One draw of the degradation, and the ranges it is drawn from.

Everything scales with a strength 0 ... 1. Squaring a uniform draw makes mild degradations common:
a model that only knows wrecked pictures would repaint clean ones.
"""

from dataclasses import dataclass

import numpy as np

from training.degradation.blur import convolve, gaussian_kernel, sinc_kernel
from training.degradation.resampling import BICUBIC, FILTERS, FloatImage, resize
from training.degradation.sensor import gaussian_noise, jpeg, poisson_noise

SCALE = 4
CLEAN_SHARE = 0.1
"""Training pictures that are only shrunk, by the bicubic filter."""
EVALUATION_STRENGTHS = (0.25, 0.55)
"""Of the blind evaluation set: what a photo from the web has been through."""


@dataclass(frozen=True)
class Round:
    """Blur, resizing, noise.

    Attributes:
        sigma_px: standard deviations of the Gaussian blur, in full-size pixels.
        angle: of its first axis, in radians.
        scale: size after the round, as a share of the full size.
        resampling: index into ``FILTERS``.
        noise: standard deviation of Gaussian noise, in units of full scale; 0 for none.
        photons: expected count at full white of Poisson noise; infinite for none.
        gray_noise: the channels share one noise.
    """

    sigma_px: tuple[float, float]
    angle: float
    scale: float
    resampling: int
    noise: float
    photons: float
    gray_noise: bool

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: float, scale: float) -> "Round":
        """Draw at random."""
        sigma = rng.uniform(0.1, 0.6 + 2.0 * strength)
        ratio = rng.uniform(0.4, 1.0) if rng.random() < 0.4 else 1.0
        poisson = rng.random() < 0.4
        noise = strength * rng.uniform(0.0, 16.0) / 255
        return cls(
            sigma_px=(float(sigma), float(sigma * ratio)),
            angle=float(rng.uniform(0, np.pi)),
            scale=scale,
            resampling=int(rng.integers(len(FILTERS))),
            noise=0.0 if poisson else float(noise),
            # Shot noise as strong as the Gaussian would have been, at middle gray.
            photons=float(0.5 / max(noise, 1e-4) ** 2) if poisson else float("inf"),
            gray_noise=bool(rng.random() < 0.4),
        )

    def apply(
        self, image: FloatImage, full_size: tuple[int, int], rng: np.random.Generator
    ) -> FloatImage:
        """Degrade an image whose full size is ``full_size`` = (height, width)."""
        now = image.shape[0] / full_size[0]
        sigma = (self.sigma_px[0] * now, self.sigma_px[1] * now)
        if max(sigma) > 0.2:  # a narrower kernel is one pixel
            image = np.clip(convolve(image, gaussian_kernel(sigma, self.angle)), 0, 1)
        size = (round(full_size[0] * self.scale), round(full_size[1] * self.scale))
        image = resize(image, size, self.resampling)
        if self.noise:
            image = gaussian_noise(image, self.noise, gray=self.gray_noise, rng=rng)
        if np.isfinite(self.photons):
            image = poisson_noise(image, self.photons, gray=self.gray_noise, rng=rng)
        return image


@dataclass(frozen=True)
class Degradation:
    """A whole degradation; empty of everything, it is bicubic shrinking.

    Attributes:
        rounds: none, one or two, the last to a quarter of the full size.
        middle_quality: JPEG quality between two rounds; None for no JPEG there.
        final_quality: JPEG quality of the result; None for no JPEG.
        sinc_cutoff: of the ringing filter before the final JPEG, in radians per pixel; None for
            no filter.
        seed: of the noise.
    """

    rounds: tuple[Round, ...] = ()
    middle_quality: int | None = None
    final_quality: int | None = None
    sinc_cutoff: float | None = None
    seed: int = 0

    @classmethod
    def draw_for_training(cls, rng: np.random.Generator) -> "Degradation":
        """Draw with a strength of its own, mild ones most often."""
        if rng.random() < CLEAN_SHARE:
            return cls()
        return cls.draw(rng, float(rng.random() ** 2))

    @classmethod
    def draw_for_evaluation(cls, rng: np.random.Generator) -> "Degradation":
        """Draw of moderate strength."""
        return cls.draw(rng, float(rng.uniform(*EVALUATION_STRENGTHS)))

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: float) -> "Degradation":
        """Draw at ``strength`` 0 ... 1."""
        target = 1 / SCALE
        if rng.random() < 0.3 + 0.6 * strength:
            # The first round ends anywhere between the full size and a little under the target.
            between = float(np.exp(rng.uniform(np.log(target * 0.8), 0.0)))
            rounds: tuple[Round, ...] = (
                Round.draw(rng, strength, between),
                Round.draw(rng, 0.6 * strength, target),
            )
        else:
            rounds = (Round.draw(rng, strength, target),)
        worst = 95 - 55 * strength
        jpegs = rng.uniform(worst, 96, 2).astype(int)
        ringing = rng.random() < 0.4 * strength
        return cls(
            rounds=rounds,
            middle_quality=int(jpegs[0]) if len(rounds) > 1 else None,
            final_quality=int(jpegs[1]) if rng.random() < 0.9 else None,
            sinc_cutoff=float(rng.uniform(np.pi / 2, np.pi)) if ringing else None,
            seed=int(rng.integers(2**31)),
        )

    def apply(self, image: FloatImage) -> FloatImage:
        """Degrade ``image`` [H, W, 3] to [H / 4, W / 4, 3]; H and W are multiples of 4."""
        full_size = (image.shape[0], image.shape[1])
        if not self.rounds:
            return resize(image, (full_size[0] // SCALE, full_size[1] // SCALE), BICUBIC)
        rng = np.random.default_rng(self.seed)
        for index, one in enumerate(self.rounds):
            if index and self.middle_quality is not None:
                image = jpeg(image, self.middle_quality)
            image = one.apply(image, full_size, rng)
        if self.sinc_cutoff is not None:
            image = np.clip(convolve(image, sinc_kernel(self.sinc_cutoff)), 0, 1)
        return image if self.final_quality is None else jpeg(image, self.final_quality)
