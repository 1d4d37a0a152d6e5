"""What is known of an image: by its header, and decoded."""

from dataclasses import dataclass

from torch import Tensor

from runtime.images.metadata import NO_METADATA, Metadata


@dataclass(frozen=True)
class Header:
    """What an image says about itself before any pixel is decoded.

    Attributes:
        width, height: as stored, in px; the EXIF orientation may exchange them.
    """

    width: int
    height: int


@dataclass(frozen=True)
class LoadedImage:
    """One decoded image.

    Attributes:
        rgb: sRGB-coded values [1, 3, H, W], float32, 0 ... 1. Invisible pixels have the nearest
            visible colour.
        alpha: opacity [1, 1, H, W], float32, 0 ... 1, or None.
        gray: whether the three channels were one.
        sample_bits: 8 or 16, per channel.
        has_profile: whether an ICC profile was embedded.
        notes: conversions the user should know of, one phrase each.
        metadata: what its result may take along.
    """

    rgb: Tensor
    alpha: Tensor | None
    gray: bool
    sample_bits: int
    has_profile: bool
    notes: tuple[str, ...]
    metadata: Metadata = NO_METADATA
