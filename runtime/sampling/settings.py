"""What a user may set about an upscale, checked in one place."""

from dataclasses import dataclass, replace
from typing import get_args

from schemas.errors import UsageError
from schemas.manifest import ColorFix, SamplingDefaults

COLOR_FIXES: tuple[ColorFix, ...] = get_args(ColorFix)


@dataclass(frozen=True)
class UpscaleSettings:
    """How to sample one image. A pack brings its defaults; a command may replace single fields.

    Attributes:
        steps: sampling steps, at least 1.
        guidance: classifier-free guidance scale; 1 asks the network for the positive prompt alone.
        shift: timestep shift of the flow-matching schedule, above 0.
        tile: side of a tile, in latent pixels; a multiple of the patch size.
        overlap: what neighbouring tiles share, in latent pixels; a multiple of the patch size.
        min_side_px: the enlarged image's shorter side is scaled up to this before the network
            sees it (the network knows no smaller images).
        color_fix: colour correction against the enlarged input.
        seed: of the starting noise; the same on every device.
    """

    steps: int
    guidance: float
    shift: float
    tile: int
    overlap: int
    min_side_px: int
    color_fix: ColorFix
    seed: int = 0

    @classmethod
    def from_manifest(cls, defaults: SamplingDefaults) -> "UpscaleSettings":
        """Return the defaults that a pack's manifest records."""
        return cls(
            steps=defaults.steps,
            guidance=defaults.guidance,
            shift=defaults.shift,
            tile=defaults.tile_latent,
            overlap=defaults.overlap_latent,
            min_side_px=defaults.min_side_px,
            color_fix=defaults.color_fix,
        )

    def with_tile(self, tile: int, patch_size: int) -> "UpscaleSettings":
        """Return these settings with another tile; the overlap keeps its share of the tile."""
        overlap = self.overlap * tile // self.tile
        return replace(self, tile=tile, overlap=overlap - overlap % patch_size)

    def override(
        self,
        *,
        patch_size: int,
        steps: int | None = None,
        guidance: float | None = None,
        tile: int | None = None,
        overlap: int | None = None,
        color_fix: ColorFix | None = None,
        seed: int | None = None,
    ) -> "UpscaleSettings":
        """Return these settings with every argument that is not None in place of its own.

        A tile given without an overlap scales the overlap with it.
        """
        resized = self if tile is None else self.with_tile(tile, patch_size)
        return replace(
            resized,
            steps=self.steps if steps is None else steps,
            guidance=self.guidance if guidance is None else guidance,
            overlap=resized.overlap if overlap is None else overlap,
            color_fix=self.color_fix if color_fix is None else color_fix,
            seed=self.seed if seed is None else seed,
        )

    def check(self, *, patch_size: int, largest_tile: int) -> None:
        """Make sure that a network can run these settings.

        Args:
            patch_size: side of the network's patches, in latent pixels.
            largest_tile: side of its position table, in latent pixels.

        Raises:
            UsageError: names the option and the values it may have.
        """
        if self.steps < 1:
            raise UsageError(f"--steps {self.steps}: at least one step is needed")
        if not self.guidance >= 0:
            raise UsageError(f"--guidance {self.guidance}: it cannot be negative")
        if self.color_fix not in COLOR_FIXES:
            raise UsageError(f"--color-fix {self.color_fix}: one of {', '.join(COLOR_FIXES)}")
        if not patch_size <= self.tile <= largest_tile or self.tile % patch_size:
            raise UsageError(
                f"--tile {self.tile}: this network takes multiples of {patch_size} up to"
                f" {largest_tile} latent pixels"
            )
        if not 0 <= self.overlap < self.tile or self.overlap % patch_size:
            raise UsageError(
                f"--overlap {self.overlap}: a multiple of {patch_size} under the tile of"
                f" {self.tile} is needed"
            )


@dataclass(frozen=True)
class SamplingOptions:
    """What a user says about sampling; None leaves a value to the model."""

    steps: int | None = None
    guidance: float | None = None
    tile: int | None = None
    overlap: int | None = None
    color_fix: str | None = None
    seed: int = 0

    def settings(
        self, defaults: UpscaleSettings, *, patch_size: int, largest_tile: int
    ) -> UpscaleSettings:
        """Return a model's ``defaults`` with these options in their place, checked.

        Raises:
            UsageError: a value that this network cannot run with.
        """
        settings = defaults.override(
            patch_size=patch_size,
            steps=self.steps,
            guidance=self.guidance,
            tile=self.tile,
            overlap=self.overlap,
            color_fix=self.color_fix,  # type: ignore[arg-type]  # any text; check() follows
            seed=self.seed,
        )
        settings.check(patch_size=patch_size, largest_tile=largest_tile)
        return settings
