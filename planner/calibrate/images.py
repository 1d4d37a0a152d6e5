"""Which images a calibration runs on, and which part of each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from artifacts.files.hashing import sha256_of
from planner.calibrate.settings import CalibrationSettings
from runtime.images.folder import scan_folder
from runtime.images.image_io import read_header, read_image
from schemas.calibration import CalibrationImage
from schemas.errors import UsageError
from schemas.manifest import SourceName


@dataclass(frozen=True)
class ChosenImages:
    """What a pass runs on.

    Attributes:
        paths: the files.
        records: the same in the calibration file, with crops.
        crop_px: side of a crop.
        warnings: what the user should know, one line each.
    """

    paths: tuple[Path, ...]
    records: tuple[CalibrationImage, ...]
    crop_px: int
    warnings: tuple[str, ...]


def choose_images(folder: Path, settings: CalibrationSettings, crop_px: int) -> ChosenImages:
    """Choose images and crops; the same folder and settings give the same.

    Raises:
        UsageError: the folder does not exist or holds no image, or one whose name cannot be
            recorded.
        ImageError: a chosen file is no image, or damaged.
    """
    content = scan_folder(folder)
    found = list(content.images)
    rng = np.random.default_rng(settings.seed)
    warnings = [f"{folder}: {content.note}"] if content.note else []
    if len(found) < settings.images:
        warnings.append(f"{folder} has {len(found)} images; {settings.images} were asked for")
    elif len(found) > settings.images:
        found = [found[i] for i in sorted(rng.permutation(len(found))[: settings.images])]
    for path in found:
        _check_name(path)
    records = []
    for path in found:
        read_image(path)  # A damaged one is refused now, not after hours spent on those before it.
        header = read_header(path)
        width, height = min(crop_px, header.width), min(crop_px, header.height)
        records.append(
            CalibrationImage(
                name=path.name,
                sha256=sha256_of(path),
                left=int(rng.integers(header.width - width + 1)),
                top=int(rng.integers(header.height - height + 1)),
                width=width,
                height=height,
            )
        )
    small = sum(record.width < crop_px or record.height < crop_px for record in records)
    if small:
        warnings.append(f"{small} calibration images are smaller than {crop_px} px, and used whole")
    return ChosenImages(tuple(found), tuple(records), crop_px, tuple(warnings))


def _check_name(path: Path) -> None:
    """Refuse a name that a calibration file cannot hold, before anything is computed.

    Raises:
        UsageError: the name has a backslash or a control character, or is not valid Unicode.
    """
    try:
        TypeAdapter(SourceName).validate_python(path.name)
    except ValidationError:
        raise UsageError(
            f"{path}: the image's name cannot be recorded: it has a backslash or a control"
            " character, or is not valid Unicode",
            hint="rename the file",
        ) from None
