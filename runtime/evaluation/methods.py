"""What is compared: bicubic enlargement, packs, an unquantized network, results of other programs.

A method is described completely before anything is loaded: what it is (so that finished pictures
can be told from others), how it is sampled, and how to get something that upscales.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.checkpoint.sampling_defaults import read_sampling_defaults
from artifacts.family import LatentSize
from artifacts.pack.reader import open_pack
from runtime.backends import find_backend
from runtime.backends.trial import trial_of
from runtime.base.files import BaseFiles
from runtime.base.folder import base_folder
from runtime.device import device_and_dtype
from runtime.evaluation.lent_parts import lent_parts
from runtime.images.alpha import resize_visible
from runtime.images.batch import DEFAULT_MAX_PIXELS
from runtime.images.image_io import read_image, write_image
from runtime.images.resizing import SCALE, resize
from runtime.loader import Loader
from runtime.sampling.sampler import StepCallback
from runtime.sampling.settings import SamplingOptions, UpscaleSettings, check_activation_bits
from runtime.sampling.table_steps import check_table_steps, table_alone
from runtime.upscale import upscale_file
from schemas.bit_grid import MeanBitWidths
from schemas.errors import UsageError

BICUBIC = "bicubic"
FULL_PRECISION = "full-precision"

Upscaler = Callable[[Path, Path, StepCallback], None]
"""Upscales an image into a file; is told whom to tell of every sampling step."""


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        name: unique, and fit for a folder's name.
        label: the name with what a reader of the table should know of it.
        identity: what makes the pictures, all of it, as JSON; equal identities give equal pictures.
        load: gets the upscaler, into memory; None where the pictures are ready.
        ready: data set -> image -> file, of pictures that were made elsewhere.
    """

    name: str
    label: str
    identity: dict[str, Any]
    load: Callable[[], Upscaler] | None
    ready: Mapping[str, Mapping[str, Path]] | None = None


@dataclass(frozen=True)
class ModelOptions:
    """What a user says about running models.

    Attributes:
        load_pipeline: the loader.
        sampling: settings that replace a model's own.
        base: files with VAE and prompts or text encoders.
        device, dtype, backend, memory: by name, as the loader takes them.
        activation_bits: one width for all activations of packs, or None for their bit grids.
        checkpoint: source of all packs, for modulation layers that they leave out; or None.
        max_pixels: inputs with more are refused.
    """

    load_pipeline: Loader
    sampling: SamplingOptions
    base: BaseFiles = field(default_factory=BaseFiles)
    device: str = "auto"
    dtype: str = "auto"
    backend: str = "auto"
    activation_bits: int | None = None
    memory: str = "auto"
    checkpoint: Path | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS

    def settings(self, defaults: UpscaleSettings, size: LatentSize) -> UpscaleSettings:
        """Return the settings that a network with these defaults runs with."""
        return self.sampling.settings(
            defaults, patch_size=size.patch_size, largest_tile=size.largest_tile
        )

    def where(self, backend: str | None) -> dict[str, str]:
        """Where and in which number format a network computes, for an identity.

        Args:
            backend: of its quantized layers; None where it has none.
        """
        device, dtype = device_and_dtype(self.device, self.dtype, backend=backend)
        return {"device": device.type, "dtype": str(dtype).removeprefix("torch.")}


def bicubic_method(max_pixels: int = DEFAULT_MAX_PIXELS) -> Method:
    """Bicubic enlargement, with the kernel of image editors."""

    def load() -> Upscaler:
        def run(source: Path, output: Path, _progress: StepCallback) -> None:
            image = read_image(source, max_pixels=max_pixels)
            height, width = (SCALE * side for side in image.rgb.shape[-2:])
            enlarged = resize_visible(image.rgb, image.alpha, (height, width))
            alpha = None if image.alpha is None else resize(image.alpha, (height, width))
            write_image(output, enlarged, image, alpha=alpha)

        return run

    identity = {"kind": BICUBIC, "program": program_version()}
    return Method(BICUBIC, BICUBIC, identity, load)


def pack_methods(paths: Sequence[Path], options: ModelOptions) -> list[Method]:
    """One method for each pack, named after its folder.

    Raises:
        PackError: a pack is damaged.
        UsageError: a setting that a pack cannot run with, or a missing part.
    """
    taken = {BICUBIC, FULL_PRECISION}
    methods = []
    for path in paths:
        stem = path.resolve().name.removesuffix(".qpack")
        name, number = stem, 2
        while name in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name)
        methods.append(_pack_method(path, name, options))
    return methods


def _pack_method(path: Path, name: str, options: ModelOptions) -> Method:
    pack = open_pack(path)
    manifest = pack.manifest
    if options.activation_bits is not None:
        check_activation_bits(options.activation_bits)
    size = pack.architecture.latent_size
    settings = options.settings(UpscaleSettings.from_manifest(manifest.sampling), size)
    # The source does not decide a picture: with the pack's own steps the table does all the same.
    check_table_steps(table_alone(manifest, with_source=options.checkpoint is not None), settings)
    device, dtype = device_and_dtype(options.device, options.dtype, backend=options.backend)
    with base_folder(options.base) as base:
        parts = lent_parts(pack, [base], f"{path} holds the transformer alone")
    identity = {
        "kind": "pack",
        "checksum": manifest.checksum,
        "target": manifest.target.model_dump(),
        "reached": manifest.reached.model_dump(),
        "recipe": manifest.recipe.name,
        "parts": parts,
        "backend": find_backend(options.backend, device, trial_of(pack, dtype)).name,
        "activation_bits": options.activation_bits,
        **_run_facts(settings, options, options.backend),
    }

    label = f"{name} ({_bits(manifest.target, options.activation_bits)})"
    return Method(name, label, identity, _loader(settings, options, pack=path))


def full_precision_method(
    path: Path, *, pack: Path | None, variant: str | None, options: ModelOptions
) -> Method:
    """An unquantized checkpoint, sampled like ``pack`` where one is given.

    Raises:
        CheckpointError: the checkpoint is damaged.
        PackError: the pack is.
        UsageError: pack and checkpoint differ in shape, a setting that the network cannot run
            with, or a missing part.
    """
    checkpoint = open_checkpoint(path)
    lender = None if pack is None else open_pack(pack)
    if lender is not None and lender.config != checkpoint.config:
        raise UsageError(f"{path} and {pack} are networks of different shapes")
    lent = None if lender is None else lender.variant
    architecture = checkpoint.architecture(variant or checkpoint.variant or lent)
    defaults = (
        read_sampling_defaults(checkpoint.parts_dir, architecture)
        if lender is None
        else lender.manifest.sampling
    )
    settings = options.settings(UpscaleSettings.from_manifest(defaults), architecture.latent_size)
    with base_folder(options.base) as base:
        parts = lent_parts(lender, [base, checkpoint.parts_dir], f"{path} is alone")
    identity = {
        "kind": FULL_PRECISION,
        "files": [file.model_dump() for file in checkpoint.source_files()],
        "variant": architecture.variant,
        "parts": parts,
        **_run_facts(settings, options, None),
    }

    load = _loader(settings, options, pack=pack, full_precision=path, variant=variant)
    return Method(FULL_PRECISION, "full precision", identity, load)


def ready_method(name: str, folder: Path, files: Mapping[str, Mapping[str, Path]]) -> Method:
    """Pictures that were made elsewhere; ``files`` is data set -> image -> file."""
    return Method(name, name, {"kind": "results", "folder": str(folder)}, None, files)


def program_version() -> str:
    """Version of this program, which is part of what makes a picture."""
    try:
        return version("qdit4sr")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"


def _loader(
    settings: UpscaleSettings,
    options: ModelOptions,
    *,
    pack: Path | None,
    full_precision: Path | None = None,
    variant: str | None = None,
) -> Callable[[], Upscaler]:
    """Return what loads a model and gives an upscaler that holds it."""

    def load() -> Upscaler:
        pipeline = options.load_pipeline(
            pack=pack,
            full_precision=full_precision,
            variant=variant,
            base=options.base,
            checkpoint=None if full_precision is not None else options.checkpoint,
            device=options.device,
            dtype=options.dtype,
            backend=options.backend,
            activation_bits=None if full_precision is not None else options.activation_bits,
            memory="auto" if full_precision is not None else options.memory,
        )

        def run(source: Path, output: Path, progress: StepCallback) -> None:
            upscale_file(
                pipeline, source, output, settings, max_pixels=options.max_pixels, progress=progress
            )

        return run

    return load


def _run_facts(
    settings: UpscaleSettings, options: ModelOptions, backend: str | None
) -> dict[str, Any]:
    return {"settings": asdict(settings), **options.where(backend), "program": program_version()}


def _bits(target: MeanBitWidths, activation_bits: int | None) -> str:
    activations = target.activation_bits if activation_bits is None else activation_bits
    return f"W{target.weight_bits:g}A{activations:g}"
