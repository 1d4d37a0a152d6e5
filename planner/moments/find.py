"""The second moments of a build that quantizes by them."""

from collections.abc import Callable
from pathlib import Path

import torch

from artifacts.checkpoint.reader import Checkpoint
from planner.build.base_model import BaseModel
from planner.build.progress import Progress
from planner.moments.gather import gather_moments
from planner.moments.kept import SecondMoments
from planner.probe.run import ProbeSettings
from planner.settings import BuildSettings
from schemas.sensitivity import SensitivityMap


def find_moments(
    checkpoint: Checkpoint,
    settings: BuildSettings,
    base: BaseModel,
    probe: ProbeSettings,
    sensitivity: SensitivityMap | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    keep: Path,
    report: Callable[[str], None] = lambda _line: None,
    progress: Progress | None = None,
) -> SecondMoments | None:
    """`gather_moments`, where the settings need it and there is something to run."""
    if not settings.uses_moments or not base.can_run:
        return None
    return gather_moments(
        checkpoint,
        settings,
        base,
        probe,
        sensitivity,
        keep,
        device=device,
        dtype=dtype,
        report=report,
        progress=progress,
    )
