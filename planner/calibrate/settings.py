"""How calibration images are drawn."""

from dataclasses import dataclass

from schemas.errors import UsageError

IMAGES = 32
"""Images of the paper's calibration set."""


@dataclass(frozen=True)
class CalibrationSettings:
    """How calibration images are drawn.

    Attributes:
        images: at most this many of a folder's.
        crop_px: side of the square crop; None for what makes one tile, 128 px with DiT4SR.
        seed: of the choice of images, the crops and the noise.

    Raises:
        UsageError: a value is out of range.
    """

    images: int = IMAGES
    crop_px: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.images < 1:
            raise UsageError(f"{self.images} calibration images", hint="give at least 1")
        if self.crop_px is not None and self.crop_px < 1:
            raise UsageError(f"calibration crops of {self.crop_px} px", hint="give at least 1")
        if not 0 <= self.seed < 2**63:
            raise UsageError(
                f"calibration seed {self.seed}", hint="give a whole number from 0 to 2^63 - 1"
            )
