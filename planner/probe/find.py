"""Where a build gets its sensitivities: from a file, or from a probe of its own."""

from collections.abc import Callable
from pathlib import Path

import torch

from artifacts.checkpoint.reader import Checkpoint
from planner.build.base_model import BaseModel
from planner.build.inventory import take_inventory
from planner.build.progress import Progress
from planner.probe.run import ProbeSettings, probe_checkpoint
from planner.probe.sensitivity_file import check_sensitivity, read_sensitivity
from planner.settings import BuildSettings
from schemas.sensitivity import SensitivityMap


def find_sensitivity(
    file: Path | None,
    checkpoint: Checkpoint,
    settings: BuildSettings,
    base: BaseModel,
    probe: ProbeSettings,
    *,
    device: torch.device,
    dtype: torch.dtype,
    keep: Path | None = None,
    report: Callable[[str], None] = lambda _line: None,
    progress: Progress | None = None,
) -> SensitivityMap | None:
    """What a file says, or a probe finds.

    Args:
        file: of `qplan probe`; None for a probe.
        checkpoint: the network.
        settings: of the build.
        base: autoencoder, prompts and sampling settings to run with.
        probe: how to probe.
        device: where the network runs.
        dtype: of the network.
        keep: folder for what single pictures gave.
        report: told the predicted cost, in one line.
        progress: told about every picture.

    Returns:
        None where bits do not depend on it, or there is nothing to run the network with.

    Raises:
        UsageError: the file is damaged, or of another network, or there are no images.
        ImageError: an image is damaged.
        ResourceError: the disk is full.
    """
    if not settings.uses_sensitivity:
        return None
    if file is not None:
        known = read_sensitivity(file)
        # Before hours of second moments are measured by it, not after.
        resolved = settings.resolved(checkpoint)
        check_sensitivity(
            known, checkpoint, take_inventory(checkpoint, resolved).quantized, resolved
        )
        return known
    if not base.can_run:
        return None
    return probe_checkpoint(
        checkpoint,
        settings.variant,
        base,
        probe,
        device=device,
        dtype=dtype,
        keep=keep,
        report=report,
        progress=progress,
    )
