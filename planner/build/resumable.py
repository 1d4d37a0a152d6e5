"""A build that goes on with what an interrupted one left."""

import hashlib
from pathlib import Path

import torch

from artifacts.checkpoint.reader import Checkpoint
from artifacts.pack.writer import check_output
from planner.build.base_model import BaseModel
from planner.build.build import BuildResult, build
from planner.build.progress import Progress
from planner.build.work_folder import WorkFolder, make_plan
from planner.moments.kept import SecondMoments
from planner.settings import BuildSettings
from schemas.calibration import Calibration
from schemas.json_io import dump_json
from schemas.manifest import Source
from schemas.sensitivity import SensitivityMap


def build_resumable(
    checkpoint: Checkpoint,
    output: Path,
    settings: BuildSettings,
    base: BaseModel,
    work: WorkFolder,
    *,
    calibration: Calibration | None = None,
    sensitivity: SensitivityMap | None = None,
    moments: SecondMoments | None = None,
    force: bool = False,
    progress: Progress | None = None,
    device: torch.device | None = None,
) -> BuildResult:
    """Build a pack as `build` does, going on with what an interrupted build left in ``work``.

    What lies beside the transformer may be another than it was: the layers do not depend on it.

    Raises:
        UsageError: as `build`, or the unfinished build had another source or other settings.
        CheckpointError: a tensor is damaged.
        ResourceError: the disk is full; what is finished is kept.
    """
    check_output(output, force=force)
    settings = settings.resolved(checkpoint)
    source = Source(files=tuple(checkpoint.source_files()))
    data = {"calibration": calibration, "sensitivity": sensitivity}
    digests = {
        name: hashlib.sha256(dump_json(found)).hexdigest()
        for name, found in data.items()
        if found is not None
    }
    if moments is not None:
        digests["moments"] = moments.digest
    where = {} if device is None else {"device": str(device)}
    work.open(make_plan(source, settings, **digests, **where))
    with work.removed_when_refused():
        result = build(
            checkpoint,
            output,
            settings,
            base,
            calibration=calibration,
            sensitivity=sensitivity,
            moments=moments,
            force=force,
            progress=progress,
            work=work,
            source=source,
            device=device,
        )
    work.remove()
    return result
