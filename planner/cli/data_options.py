"""The options of ``qplan build`` that say what bits are decided by."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from schemas.errors import UsageError

if TYPE_CHECKING:
    from planner.settings import BuildSettings


@dataclass(frozen=True)
class DataOptions:
    """What bits are decided by, beside the weights."""

    panel: ClassVar[str] = "Data"

    calib: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Low-resolution images to calibrate with, or to probe with (default: generated).",
        ),
    ] = None
    calibration: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What `qplan calibrate` found, instead.")
    ] = None
    sensitivity: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What `qplan probe` found, for recipes that go by it."),
    ] = None

    def used_by(self, settings: "BuildSettings") -> tuple["DataOptions", list[str]]:
        """What of them ``settings`` use, and a warning for what they do not."""
        recipe = f"at {settings.target} recipe {settings.recipe} does not use a"
        calib, calibration, sensitivity = self.calib, self.calibration, self.sensitivity
        warnings = []
        if sensitivity is not None and not settings.uses_sensitivity:
            warnings.append(f"{recipe} sensitivity")
            sensitivity = None
        by_pictures = settings.uses_calibration or settings.uses_sensitivity
        if (calibration is not None and not settings.uses_calibration) or (
            calib is not None and not by_pictures
        ):
            more = "" if settings.uses_sensitivity else "; --vatmp does"
            warnings.append(f"{recipe} calibration{more}")
            calib = calibration = None
        return DataOptions(calib, calibration, sensitivity), warnings

    def named(self) -> set[str]:
        """The options that were given."""
        return {name for name, value in asdict(self).items() if value is not None}

    def check(self) -> None:
        """Make sure that they do not contradict one another, and are there.

        Raises:
            UsageError: they do, or are not.
        """
        if self.calib is not None and self.calibration is not None:
            raise UsageError("a calibration is given twice", hint="--calib or --calibration")
        for file in (self.calibration, self.sensitivity):
            if file is not None and not file.exists():
                raise UsageError(f"{file}: cannot be read: No such file or directory")
