"""Sensitivity files: reading, writing, and whether one fits the network that is being built."""

from collections.abc import Sequence
from pathlib import Path

from artifacts.checkpoint.reader import Checkpoint
from artifacts.files.whole_file import write_bytes
from planner.settings import BuildSettings
from schemas.errors import ResourceError, UsageError
from schemas.json_io import dump_json, read_json_file, validate
from schemas.sensitivity import MAX_SENSITIVITY_BYTES, SensitivityMap

SHOWN_NAMES = 3


def read_sensitivity(path: Path) -> SensitivityMap:
    """Read a sensitivity file.

    Raises:
        UsageError: it is missing, damaged, or something else.
    """
    content = read_json_file(
        path, where=str(path), error=UsageError, max_bytes=MAX_SENSITIVITY_BYTES
    )
    return validate(SensitivityMap, content, where=str(path), error=UsageError)


def write_sensitivity(path: Path, sensitivity: SensitivityMap) -> None:
    """Write a sensitivity file, whole or not at all.

    Raises:
        ResourceError: the disk is full or fails; an older file is as it was.
    """
    try:
        write_bytes(path, dump_json(sensitivity))
    except OSError as cause:
        raise ResourceError(f"{path}: cannot be written: {cause.strerror or cause}") from cause


def check_sensitivity(
    sensitivity: SensitivityMap | None,
    checkpoint: Checkpoint,
    layers: Sequence[str],
    settings: BuildSettings,
) -> None:
    """Make sure that ``sensitivity`` has what ``settings`` need to decide the bits of ``layers``.

    Raises:
        UsageError: it is missing, or of another checkpoint or variant, or lacks layers.
    """
    if sensitivity is None:
        if settings.uses_sensitivity:
            raise UsageError(
                f"recipe {settings.recipe} decides bits by sensitivity, and there is none",
                hint="give --base, so that the network can be probed, or --sensitivity",
            )
        return
    known = {file.sha256 for file in sensitivity.source.files}
    if known != {file.sha256 for file in checkpoint.source_files()}:
        raise UsageError("the sensitivity is of another checkpoint", hint="probe this one")
    if sensitivity.variant != settings.variant:
        raise UsageError(
            f"the sensitivity is of variant {sensitivity.variant}, not {settings.variant}"
        )
    missing = [name for name in layers if name not in sensitivity.layers]
    if missing:
        raise UsageError(
            f"the sensitivity lacks {len(missing)} layers: {', '.join(missing[:SHOWN_NAMES])}"
        )
