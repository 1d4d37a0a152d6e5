"""From the options of a command to a loaded model and the settings it is sampled with.

Heavy imports stand inside the functions that need them, so that ``--help`` is answered at once.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runtime.cli.options import (
    ActivationBits,
    Backend,
    Base,
    ColorFix,
    Device,
    Dtype,
    FullPrecision,
    Guidance,
    MaxPixels,
    Overlap,
    Seed,
    Steps,
    Tile,
    Variant,
)
from runtime.device_names import check_names
from runtime.images.batch import DEFAULT_MAX_PIXELS
from schemas.errors import UsageError

if TYPE_CHECKING:
    from runtime.pipeline import Pipeline
    from runtime.sampling.settings import SamplingOptions


@dataclass(frozen=True)
class NetworkOptions:
    """Options of every command that samples: which network beside packs, how, and where."""

    full_precision: FullPrecision = None
    variant: Variant = None
    base: Base = None
    steps: Steps = None
    guidance: Guidance = None
    seed: Seed = 0
    tile: Tile = None
    overlap: Overlap = None
    color_fix: ColorFix = None
    activation_bits: ActivationBits = None
    device: Device = "auto"
    dtype: Dtype = "auto"
    backend: Backend = "auto"
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS

    @property
    def sampling(self) -> "SamplingOptions":
        """Those that say how to sample."""
        from runtime.sampling.settings import SamplingOptions

        return SamplingOptions(
            self.steps, self.guidance, self.tile, self.overlap, self.color_fix, self.seed
        )

    def check(self) -> None:
        """Check what can be checked without reading anything.

        Raises:
            UsageError: an option has a value that it cannot have.
        """
        check_names(self.device, self.dtype)
        if self.variant is not None and self.full_precision is None:
            raise UsageError("--variant goes with --full-precision: a pack knows its own")


def load_pipeline(**options: Any) -> "Pipeline":
    """`runtime.loader.load_pipeline`, which is imported when it is called."""
    from runtime import loader

    return loader.load_pipeline(**options)
