"""From the options of a command to a loaded model and the settings it is sampled with.

Heavy imports stand inside the functions that need them, so that ``--help`` is answered at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.cli.options import (
    DEVICES,
    DTYPES,
    VARIANTS,
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
from runtime.images.batch import DEFAULT_MAX_PIXELS
from schemas.bit_grid import BIT_WIDTHS, UNQUANTIZED
from schemas.errors import UsageError

if TYPE_CHECKING:
    import torch

    from runtime.pipeline import Pipeline
    from runtime.sampling.settings import UpscaleSettings

Loader = Callable[..., "Pipeline"]
"""`load_pipeline`, or what stands in for it."""


@dataclass(frozen=True)
class SamplingOptions:
    """What the command line says about sampling; None leaves a value to the model."""

    steps: int | None = None
    guidance: float | None = None
    tile: int | None = None
    overlap: int | None = None
    color_fix: str | None = None
    seed: int = 0

    def settings(
        self, defaults: "UpscaleSettings", *, patch_size: int, largest_tile: int
    ) -> "UpscaleSettings":
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
    def sampling(self) -> SamplingOptions:
        """Those that say how to sample."""
        return SamplingOptions(
            self.steps, self.guidance, self.tile, self.overlap, self.color_fix, self.seed
        )

    def check(self) -> None:
        """Check what can be checked without reading anything.

        Raises:
            UsageError: an option has a value that it cannot have.
        """
        one_of("--device", self.device, DEVICES)
        one_of("--dtype", self.dtype, DTYPES)
        if self.variant is not None:
            one_of("--variant", self.variant, VARIANTS)
            if self.full_precision is None:
                raise UsageError("--variant goes with --full-precision: a pack knows its own")


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Make sure that an option has one of its values.

    Raises:
        UsageError: it has not; names all of them.
    """
    if value not in allowed:
        raise UsageError(f"{option} {value}: one of {', '.join(allowed)}")


def load_pipeline(
    *,
    pack: Path | None,
    full_precision: Path | None,
    variant: str | None,
    base: Path | None,
    device: str,
    dtype: str,
    backend: str,
) -> "Pipeline":
    """Load the model that the options name, onto the device they name."""
    from runtime.load import load_full_precision, load_pack

    torch_device, torch_dtype = device_and_dtype(
        device, dtype, backend=None if full_precision is not None else backend
    )
    if full_precision is not None:
        return load_full_precision(
            full_precision,
            pack=pack,
            base=base,
            variant=variant,
            device=torch_device,
            dtype=torch_dtype,
        )
    assert pack is not None  # checked before anything was read
    return load_pack(pack, base=base, device=torch_device, dtype=torch_dtype, backend=backend)


def device_and_dtype(
    device: str, dtype: str, *, backend: str | None = None
) -> "tuple[torch.device, torch.dtype]":
    """Choose where and how to compute.

    A GPU where there is one, and bfloat16 there. The CPU computes in float32, but in bfloat16 where
    that is around the integer products of the backend ``cpu`` and the processor multiplies it.

    Args:
        device: as on the command line.
        dtype: as on the command line.
        backend: of the quantized layers; None for a network without such.

    Raises:
        UsageError: a GPU is asked for and there is none, or the backend cannot run there.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise UsageError(
            "--device cuda: torch sees no GPU here", hint="--device cpu works anywhere"
        )
    if device == "auto":
        device = "cuda" if has_gpu else "cpu"
    chosen = torch.device(device)
    if dtype != "auto":
        explicit: torch.dtype = getattr(torch, dtype)
        return chosen, explicit
    if chosen.type == "cuda":
        return chosen, torch.bfloat16
    from runtime.backends import find_backend
    from runtime.processor import multiplies_bfloat16

    narrow = (
        backend is not None
        and multiplies_bfloat16()
        and find_backend(backend, chosen).name == "cpu"
    )
    return chosen, torch.bfloat16 if narrow else torch.float32


def check_activation_bits(bits: int) -> None:
    """Make sure that activations can have this width.

    Raises:
        UsageError: they cannot.
    """
    if bits not in BIT_WIDTHS:
        raise UsageError(
            f"--activation-bits {bits}: 1 to 8, or {UNQUANTIZED} for unquantized activations"
        )


def with_activation_bits(pipeline: "Pipeline", bits: int) -> "Pipeline":
    """Return the pipeline with one activation width in place of its bit grid.

    Raises:
        UsageError: no such width, or a network without quantized layers.
    """
    check_activation_bits(bits)
    grid = pipeline.bits_at(0.0)
    if grid is None:
        raise UsageError("--activation-bits: a full-precision network has no quantized layers")
    column = dict.fromkeys(grid, bits)
    return replace(pipeline, bits_at=lambda _timestep: column)
