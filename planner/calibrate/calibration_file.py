"""Calibration files: reading, writing, and whether one fits the network that is being built."""

from collections.abc import Sequence
from pathlib import Path

from artifacts.checkpoint.reader import Checkpoint
from artifacts.files.whole_file import write_bytes
from planner.settings import BuildSettings
from schemas.calibration import MAX_CALIBRATION_BYTES, MAX_CALIBRATION_VALUES, Calibration
from schemas.errors import ResourceError, UsageError
from schemas.json_io import dump_json, read_json_file, validate

SHOWN_NAMES = 3


def read_calibration(path: Path) -> Calibration:
    """Read a calibration file.

    Raises:
        UsageError: it is missing, damaged, or something else.
    """
    content = read_json_file(
        path,
        where=str(path),
        error=UsageError,
        max_bytes=MAX_CALIBRATION_BYTES,
        max_values=MAX_CALIBRATION_VALUES,
    )
    return validate(Calibration, content, where=str(path), error=UsageError)


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration file, whole or not at all.

    Raises:
        ResourceError: the disk is full or fails; an older file is as it was.
    """
    try:
        write_bytes(path, dump_json(calibration))
    except OSError as cause:
        raise ResourceError(f"{path}: cannot be written: {cause.strerror or cause}") from cause


def check_calibration(
    calibration: Calibration | None,
    checkpoint: Checkpoint,
    layers: Sequence[str],
    settings: BuildSettings,
) -> None:
    """Make sure that ``calibration`` has what ``settings`` need to quantize ``layers``.

    Raises:
        UsageError: it is missing where smoothing needs it, is of another checkpoint or variant, or
            lacks layers.
    """
    if calibration is None:
        if settings.searches_smoothing:
            raise UsageError(
                f"recipe {settings.recipe} smooths and needs to know the activations",
                hint="give --calib with a folder of low-resolution images",
            )
        return
    known = {file.sha256 for file in calibration.source.files}
    if known != {file.sha256 for file in checkpoint.source_files()}:
        raise UsageError("the calibration is of another checkpoint", hint="calibrate this one")
    if calibration.variant != settings.variant:
        raise UsageError(
            f"the calibration is of variant {calibration.variant}, not {settings.variant}"
        )
    for what, wanted, have in (
        ("mean squares", settings.wants_vatmp, calibration.mean_squares),
        ("channel statistics", settings.searches_smoothing, calibration.channels),
    ):
        missing = [name for name in layers if name not in have] if wanted else []
        if missing:
            raise UsageError(
                f"the calibration lacks {what} of {len(missing)} layers:"
                f" {', '.join(missing[:SHOWN_NAMES])}",
                hint="calibrate with the recipe and the layers that will be quantized",
            )
