"""How calibration images are drawn."""

from dataclasses import dataclass

from schemas.errors import UsageError
from schemas.manifest import MAX_FILES, MAX_SIDE_PX

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
        if not 1 <= self.images <= MAX_FILES:
            raise UsageError(f"{self.images} calibration images", hint=f"give 1 to {MAX_FILES}")
        if self.crop_px is not None and not 1 <= self.crop_px <= MAX_SIDE_PX:
            raise UsageError(
                f"calibration crops of {self.crop_px} px", hint=f"give 1 to {MAX_SIDE_PX}"
            )
        if not 0 <= self.seed < 2**63:
            raise UsageError(
                f"calibration seed {self.seed}", hint="give a whole number from 0 to 2^63 - 1"
            )
