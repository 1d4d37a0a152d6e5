"""The pictures that second moments are taken from."""

from dataclasses import replace

from torch import Tensor

from planner.probe.pictures import worn_leaves
from planner.probe.run import ProbeSettings, probe_pictures
from schemas.calibration import CalibrationImage

PER_GENERATED = 4
"""Generated pictures for each of the probe's: a moment has far more numbers than sensitivities."""


def moment_settings(probe: ProbeSettings) -> ProbeSettings:
    """The same photos as the probe's, or more generated pictures than it takes."""
    if probe.folder is not None:
        return probe
    return replace(probe, pictures=PER_GENERATED * probe.pictures)


def moment_pictures(
    settings: ProbeSettings, crop_px: int
) -> tuple[list[Tensor], tuple[CalibrationImage, ...]]:
    """As `planner.probe.run.probe_pictures`, generated ones with a camera's blur and noise.

    What rounding by them wins: docs/results/quality_parts.md, where the probe keeps to clean ones.

    Args:
        settings: as `moment_settings` gives them.
        crop_px: side of a picture.

    Raises:
        UsageError: there are no images.
        ImageError: an image is damaged.
    """
    if settings.folder is not None:
        return probe_pictures(settings, crop_px)
    seeds = range(settings.seed, settings.seed + settings.pictures)
    return [worn_leaves(crop_px, crop_px, seed) for seed in seeds], ()
