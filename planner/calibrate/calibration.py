"""The calibration pass: run the network on a few images and measure what every layer is fed.

Each image is a random crop of a low-resolution photo, carried through the whole sampling
trajectory, both guidance branches, with the weights already quantized and the activations not
(Q-DiT4SR, Sec. 3.4). No activation is kept. Every finished image is written to a work folder, so
that an interrupted pass goes on where it stopped, to the same result.

Besides `planner.build.network_probe` this is the one planner module that may import the runtime.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from artifacts.checkpoint.reader import Checkpoint
from artifacts.family import Architecture
from artifacts.pack.file_names import VAE_FOLDER, sha256_of
from artifacts.pack.reader import Pack
from planner.build.base_model import BaseModel
from planner.build.progress import Progress
from planner.calibrate.input_statistics import InputStatistics, LayerInputs
from planner.estimate.accounting import network_work
from runtime.device import device_and_dtype
from runtime.images.batch import INPUT_SUFFIXES
from runtime.images.image_io import read_header, read_image
from runtime.images.resizing import SCALE
from runtime.load import load_vae, network_from_checkpoint, network_from_pack, prompts_from
from runtime.network.family import LatentNetwork
from runtime.pipeline import Pipeline, vae_factor
from runtime.sampling.sampler import initial_noise, sample
from runtime.sampling.settings import UpscaleSettings
from runtime.upscale import encode_image
from schemas.calibration import CalibrationImage, ChannelStatistics
from schemas.errors import UsageError

IMAGES = 32
"""Images of the paper's calibration set."""
SIGNIFICANT_DIGITS = 6
"""Of the numbers in a calibration file: far more than allocation can tell apart."""


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


@dataclass(frozen=True)
class Statistics:
    """The result of a pass, averaged over images; names as in the network.

    Attributes:
        mean_squares: layer -> mean square of the input at every timestep.
        channels: layer -> channel statistics, or nothing.
    """

    mean_squares: dict[str, tuple[float, ...]]
    channels: dict[str, ChannelStatistics]


def choose_device(name: str) -> tuple[torch.device, torch.dtype]:
    """Where the network runs and in which dtype, chosen as `qrun` chooses.

    Raises:
        UsageError: there is no such device here.
    """
    return device_and_dtype(name, "auto")


def default_crop_px(base: BaseModel) -> int:
    """The low-resolution crop whose enlargement fills exactly one tile of the network.

    Raises:
        UsageError: ``base`` lacks VAE or prompts.
    """
    vae = load_vae(vae_folder(base), torch.device("cpu"))
    return base.sampling.tile_latent * vae_factor(vae) // SCALE


def choose_images(folder: Path, settings: CalibrationSettings, crop_px: int) -> ChosenImages:
    """Choose images and crops; the same folder and settings give the same.

    Raises:
        UsageError: the folder does not exist or holds no image.
        ImageError: a chosen file is no image.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder of calibration images")
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in INPUT_SUFFIXES and path.is_file()
    )
    if not found:
        raise UsageError(f"{folder}: no image in this folder")
    rng = np.random.default_rng(settings.seed)
    warnings = []
    if len(found) < settings.images:
        warnings.append(f"{folder} has {len(found)} images; {settings.images} were asked for")
    elif len(found) > settings.images:
        found = [found[i] for i in sorted(rng.permutation(len(found))[: settings.images])]
    records = []
    for path in found:
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


def quantized_pipeline(
    pack: Pack, base: BaseModel, device: torch.device, dtype: torch.dtype
) -> Pipeline:
    """The network of a pack, its activations unquantized, with the parts of ``base``.

    Raises:
        UsageError: ``base`` lacks VAE or prompts.
    """
    network = network_from_pack(pack, device=device, dtype=dtype, backend="reference")
    return _pipeline(pack.architecture, network, base, device, dtype)


def full_precision_pipeline(
    checkpoint: Checkpoint,
    variant: str | None,
    base: BaseModel,
    device: torch.device,
    dtype: torch.dtype,
) -> Pipeline:
    """The unquantized network of a checkpoint, with the parts of ``base``.

    Raises:
        UsageError: ``base`` lacks VAE or prompts.
    """
    network = network_from_checkpoint(checkpoint, variant, device=device, dtype=dtype)
    return _pipeline(checkpoint.architecture(variant), network, base, device, dtype)


def _pipeline(
    architecture: Architecture,
    network: LatentNetwork,
    base: BaseModel,
    device: torch.device,
    dtype: torch.dtype,
) -> Pipeline:
    vae = load_vae(vae_folder(base), device)
    return Pipeline(
        architecture=architecture,
        network=network,
        vae=vae,
        prompts=prompts_from(base.prompts or {}).to(device, dtype),
        bits_at=lambda _timestep: None,
        sampling=UpscaleSettings.from_manifest(base.sampling),
        device=device,
        dtype=dtype,
    )


def vae_folder(base: BaseModel) -> Path:
    """Where the autoencoder is; also makes sure that there are prompts.

    Raises:
        UsageError: VAE or prompts are missing.
    """
    if base.folder is None or base.prompts is None:
        raise UsageError(
            "a calibration runs the whole pipeline and needs VAE and prompts",
            hint="give --base with a Stable Diffusion 3.5 folder",
        )
    return base.folder / VAE_FOLDER


def calibrate(
    pipeline: Pipeline,
    layers: Sequence[str],
    images: ChosenImages,
    *,
    seed: int,
    channels: bool = False,
    work: Path,
    progress: Progress,
) -> Statistics:
    """Run all images that have no result in ``work`` yet, and average over all of them.

    Args:
        pipeline: what to run.
        layers: names of the layers to watch.
        images: what to run on.
        seed: of the noise; image i starts from seed + i.
        channels: also measure channels.
        work: an existing folder for the results of single images.
        progress: told about every image.

    Raises:
        ImageError: an image is damaged.
        KeyboardInterrupt: with a message that says what was kept.
    """
    done: list[dict[str, Tensor]] = []
    numbered = list(enumerate(zip(images.paths, images.records, strict=True)))
    for index, (path, record) in progress.track(numbered, "calibrate"):
        progress.note(path.name)
        file = work / f"image-{index:05d}.safetensors"
        found = _read_result(file)
        if found is None:
            try:
                found = _as_tensors(_run(pipeline, layers, path, record, seed + index, channels))
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"{index} of {len(images.paths)} calibration images are kept; the same command"
                    " goes on from there"
                ) from None
            partial = file.with_suffix(".partial")
            save_file(found, partial)
            partial.replace(file)
        done.append(found)
    return _average(layers, done, channels=channels)


def _run(
    pipeline: Pipeline,
    layers: Sequence[str],
    path: Path,
    record: CalibrationImage,
    seed: int,
    channels: bool,
) -> LayerInputs:
    """One image's trajectory."""
    crop = read_image(path).rgb[
        ...,
        record.top : record.top + record.height,
        record.left : record.left + record.width,
    ]
    settings = pipeline.sampling
    control = encode_image(pipeline, crop, settings).control
    watch = InputStatistics(pipeline.network, layers, settings.steps, channels=channels)

    def unquantized(_timestep: float) -> None:
        watch.next_step()

    with watch:
        sample(
            pipeline.network,
            control.to(pipeline.dtype),
            pipeline.prompts,
            settings,
            noise=initial_noise(tuple(control.shape), seed),
            patch_size=pipeline.patch_size,
            bits_at=unquantized,
        )
    return watch.result()


def _as_tensors(inputs: LayerInputs) -> dict[str, Tensor]:
    tensors = {"mean_squares": inputs.mean_squares}
    for index, (maximum, mean) in enumerate(
        zip(inputs.maximum, inputs.channel_mean_squares, strict=True)
    ):
        tensors[f"maximum.{index}"] = maximum
        tensors[f"channel_mean_square.{index}"] = mean
    return tensors


def _read_result(file: Path) -> dict[str, Tensor] | None:
    """One image's result, or None where there is none that can be read."""
    try:
        return load_file(file)
    except (OSError, SafetensorError):
        return None


def _average(
    layers: Sequence[str], images: Sequence[dict[str, Tensor]], *, channels: bool
) -> Statistics:
    """Mean over images, in their order, so that a resumed pass adds up the same sums."""
    means = torch.stack([image["mean_squares"] for image in images]).mean(0)
    found: dict[str, ChannelStatistics] = {}
    for index, name in enumerate(layers if channels else ()):
        maximum = torch.stack([image[f"maximum.{index}"] for image in images]).amax(0)
        power = torch.stack([image[f"channel_mean_square.{index}"] for image in images]).mean(0)
        found[name] = ChannelStatistics(maximum=_rounded(maximum), mean_square=_rounded(power))
    rows = {name: _rounded(row) for name, row in zip(layers, means, strict=True)}
    return Statistics(rows, found)


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(float(f"{value:.{SIGNIFICANT_DIGITS}g}") for value in values.tolist())


@dataclass(frozen=True)
class Cost:
    """What a pass will take.

    Attributes:
        images, steps, branches: their product is the number of forward passes, for one tile each.
        operations: floating-point operations, two for a multiply-accumulate, block linears alone.
        seconds: at the speed at which this machine multiplies matrices, in the network's dtype.
    """

    images: int
    steps: int
    branches: int
    operations: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"calibration: {self.images} images x {self.steps} steps x {self.branches} guidance"
            f" branches, {self.operations / 1e12:,.1f} TFLOP, at least"
            f" {_duration(self.seconds)} on this machine"
        )


def estimate_cost(pipeline: Pipeline, images: ChosenImages) -> Cost:
    """Predict a pass from the size of its crops and the speed of one matrix product."""
    settings = pipeline.sampling
    branches = 1 if settings.guidance == 1 else 2
    token_px = pipeline.vae_factor * pipeline.patch_size
    side = max(SCALE * images.crop_px, settings.min_side_px) // token_px * token_px
    text = len(pipeline.prompts.positive_embeds)
    streams = pipeline.architecture.count_tokens(side, text, vae_factor=pipeline.vae_factor)
    work = network_work(pipeline.architecture, streams)
    operations = 2.0 * work.dense * len(images.paths) * settings.steps * branches
    speed = multiplication_speed(pipeline.device, pipeline.dtype)
    return Cost(len(images.paths), settings.steps, branches, operations, operations / speed)


def multiplication_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a matrix product of a transformer's usual shape."""
    tokens, width, repeats = 1024, 1536, 3
    x = torch.randn(tokens, width, device=device, dtype=dtype)
    weight = torch.randn(width, width, device=device, dtype=dtype)

    def run() -> float:
        started = time.perf_counter()
        product = x @ weight
        float(product[0, 0])  # waits for a GPU
        return time.perf_counter() - started

    run()
    return 2.0 * tokens * width * width / min(run() for _ in range(repeats))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
