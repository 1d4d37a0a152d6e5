"""What a user may set about an upscale, checked in one place."""

from dataclasses import dataclass, replace
from typing import get_args

from schemas.bit_grid import MAX_TIMESTEPS
from schemas.bit_widths import BIT_WIDTHS, UNQUANTIZED
from schemas.choices import check_guidance
from schemas.errors import UsageError
from schemas.manifest import ColorFix, SamplingDefaults

LARGEST_SEED = 2**63 - 1
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
        fidelity: 0 samples from noise alone, 1 begins closest to the input.
        start_sigma: share of noise that the network was trained to begin with, in 0 ... 1.
    """

    steps: int
    guidance: float
    shift: float
    tile: int
    overlap: int
    min_side_px: int
    color_fix: ColorFix
    seed: int = 0
    fidelity: float = 0.0
    start_sigma: float = 1.0

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
            start_sigma=defaults.start_sigma,
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
        fidelity: float | None = None,
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
            fidelity=self.fidelity if fidelity is None else fidelity,
        )

    def check(self, *, patch_size: int, largest_tile: int) -> None:
        """Make sure that a network can run these settings.

        Args:
            patch_size: side of the network's patches, in latent pixels.
            largest_tile: side of its position table, in latent pixels.

        Raises:
            UsageError: names the option and the values it may have.
        """
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


def check_activation_bits(bits: int) -> None:
    """Make sure that activations can have this width.

    Raises:
        UsageError: they cannot.
    """
    if bits not in BIT_WIDTHS:
        raise UsageError(
            f"--activation-bits {bits}: 1 to 8, or {UNQUANTIZED} for unquantized activations"
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
    fidelity: float | None = None

    def check(self) -> None:
        """Make sure that some network could run with these options; nothing heavy is needed.

        Raises:
            UsageError: names the option and the values it may have.
        """
        if self.steps is not None and not 1 <= self.steps <= MAX_TIMESTEPS:
            raise UsageError(f"--steps {self.steps}: 1 to {MAX_TIMESTEPS} steps are needed")
        if self.guidance is not None:
            check_guidance(self.guidance)
        if self.color_fix is not None and self.color_fix not in COLOR_FIXES:
            raise UsageError(f"--color-fix {self.color_fix}: one of {', '.join(COLOR_FIXES)}")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise UsageError(f"--seed {self.seed}: a whole number from 0 to 2^63 - 1 is needed")
        if self.fidelity is not None and not 0 <= self.fidelity <= 1:
            raise UsageError(
                f"--fidelity {self.fidelity:g}: 0 (inventive) to 1 (faithful) is needed"
            )
        if self.tile is not None and self.tile < 1:
            raise UsageError(f"--tile {self.tile}: latent pixels, at least 1")
        if self.overlap is not None and self.overlap < 0:
            raise UsageError(f"--overlap {self.overlap}: latent pixels, at least 0")

    def settings(
        self, defaults: UpscaleSettings, *, patch_size: int, largest_tile: int
    ) -> UpscaleSettings:
        """Return a model's ``defaults`` with these options in their place, checked.

        Raises:
            UsageError: a value that this network, or any, cannot run with.
        """
        self.check()
        settings = defaults.override(
            patch_size=patch_size,
            steps=self.steps,
            guidance=self.guidance,
            tile=self.tile,
            overlap=self.overlap,
            color_fix=self.color_fix,  # type: ignore[arg-type]  # any text; check() follows
            seed=self.seed,
            fidelity=self.fidelity,
        )
        settings.check(patch_size=patch_size, largest_tile=largest_tile)
        return settings
