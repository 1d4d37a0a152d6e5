"""What every picture is judged by."""

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.demo_quality.flaws import (
    colour_drift,
    grid_images_db,
    patch_peaks_db,
    ragged_edges_db,
)
from runtime.evaluation.metrics import check_names, open_metrics
from schemas.errors import UsageError
from training.features import feature_distances
from training.metrics import measure, upper_octave_power

FORMAT = 5
"""Raise when a value is computed otherwise: stored ones are then not read any more."""
LIBRARY_METRICS = ("ssim", "gmsd", "vif", "nlpd", "piqe")
"""Of ``qrun eval``: they need no weights. NIQE is left out: it fits a Gaussian of 36 features to
blocks of 96 px, of which a crop has four."""

Scores = dict[str, float]


@dataclass(frozen=True)
class Column:
    """A metric as tables show it.

    Attributes:
        heading: with its unit.
        digits: after the point.
        better: ``higher`` or ``lower``.
    """

    heading: str
    digits: int
    better: str


WITH_TRUTH = {
    "psnr_db": Column("PSNR, dB", 2, "higher"),
    "ssim": Column("SSIM", 3, "higher"),
    "fsim": Column("FSIM", 3, "higher"),
    "gmsd": Column("GMSD", 3, "lower"),
    "vif": Column("VIF", 3, "higher"),
    "nlpd": Column("NLPD", 3, "lower"),
    "ciede2000": Column("CIEDE2000", 2, "lower"),
    "features": Column("features", 2, "lower"),
}
ALONE = {
    "piqe": Column("PIQE", 1, "lower"),
    "brisque": Column("BRISQUE", 1, "lower"),
}


class Judge:
    """The metrics, ready to use.

    Raises:
        UsageError: pyiqa or brisque is missing.
    """

    def __init__(self) -> None:
        check_names(LIBRARY_METRICS, have_truth=True)
        opened = open_metrics(LIBRARY_METRICS)
        if opened.unavailable:
            raise UsageError("; ".join(f"{n}: {why}" for n, why in opened.unavailable.items()))
        self._metrics = opened.metrics
        self._brisque = open_brisque()

    def scores(self, picture: Tensor, truth: Tensor) -> Scores:
        """All values of one picture [1, 3, H, W] in 0 ... 1; powers of the upper octave as such."""
        result, wanted = picture[0].numpy(), truth[0].numpy()
        found = measure(result, wanted)
        found["upper_octave"] = upper_octave_power(result)
        found["truth_upper_octave"] = upper_octave_power(wanted)
        found["features"] = feature_difference(picture, truth)
        for metric in self._metrics:
            found[metric.name] = metric.score(picture, truth)
        found["brisque"] = self._brisque(picture)
        found |= patch_peaks_db(result, wanted)
        found["grid_images_db"] = grid_images_db(result, wanted)
        found["ragged_edges_db"] = ragged_edges_db(result, wanted)
        found["colour_drift"] = colour_drift(result, wanted)
        return {name: round(value, 8) for name, value in found.items() if math.isfinite(value)}


def feature_difference(picture: Tensor, truth: Tensor) -> float:
    """Distance of features (`training.features`) of pictures [1, 3, H, W] in 0 ... 1.

    Added up over stages, so up to 20; the pictures as they are.
    """
    with torch.inference_mode():
        return float(sum(d.sum() for d in feature_distances(picture * 2 - 1, truth * 2 - 1)))


def open_brisque() -> Callable[[Tensor], float]:
    """BRISQUE (Mittal, Moorthy and Bovik 2012) by the package of that name.

    Raises:
        UsageError: the package, or OpenCV, is missing.
    """
    if any(importlib.util.find_spec(name) is None for name in ("brisque", "cv2", "libsvm")):
        raise UsageError(
            "BRISQUE needs the packages brisque and OpenCV, not installed here",
            hint="pip install 'qdit4sr[peers]'",
        )
    from brisque import BRISQUE  # noqa: PLC0415  (an extra)

    class Scalars(BRISQUE):  # type: ignore[misc]
        """Takes its features as numbers: they are arrays of one, which NumPy no longer converts."""

        def scale_features(self, features: Any) -> Any:
            return super().scale_features([np.asarray(feature).item() for feature in features])

    model = Scalars()

    def score(picture: Tensor) -> float:
        pixels = np.uint8(np.rint(picture[0].permute(1, 2, 0).numpy() * 255))
        return float(model.score(pixels))

    return score


def octave_share(scores: Mapping[str, Scores]) -> float:
    """Power in the upper octave over all crops, of the truth's; textured crops decide it."""
    own = sum(values["upper_octave"] for values in scores.values())
    return own / sum(values["truth_upper_octave"] for values in scores.values())


def octave_share_median(scores: Mapping[str, Scores]) -> float:
    """Power in the upper octave of the truth's, of the median crop."""
    shares = [v["upper_octave"] / v["truth_upper_octave"] for v in scores.values()]
    return float(np.median(shares))
