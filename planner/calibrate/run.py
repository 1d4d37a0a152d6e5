"""The calibration pass: run the network on a few images and measure what every layer is fed.

Each image is a random crop of a low-resolution photo, carried through the whole sampling
trajectory, both guidance branches, with the weights already quantized and the activations not
(Q-DiT4SR, Sec. 3.4). No activation is kept. Every finished image is written to a work folder, so
that an interrupted pass goes on where it stopped, to the same result; what is damaged there is made
anew.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from artifacts.files.sealed_tensors import read_sealed, write_sealed
from planner.build.progress import Progress
from planner.calibrate.images import ChosenImages
from planner.calibrate.input_statistics import InputStatistics, LayerInputs
from planner.calibrate.layer_watch import sample_watched
from runtime.images.image_io import read_image
from runtime.pipeline import Pipeline
from schemas.calibration import CalibrationImage, ChannelStatistics
from schemas.errors import PackError

SIGNIFICANT_DIGITS = 6
"""Of the numbers in a calibration file: far more than allocation can tell apart."""


@dataclass(frozen=True)
class Statistics:
    """The result of a pass, averaged over images; names as in the network.

    Attributes:
        mean_squares: layer -> mean square of the input at every timestep.
        channels: layer -> channel statistics, or nothing.
    """

    mean_squares: dict[str, tuple[float, ...]]
    channels: dict[str, ChannelStatistics]


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
        subject = _subject(layers, record, seed + index, channels)
        found = _read_result(file, subject)
        if found is None:
            try:
                found = _as_tensors(_run(pipeline, layers, path, record, seed + index, channels))
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"{index} of {len(images.paths)} calibration images are kept; the same command"
                    " goes on from there"
                ) from None
            write_sealed(file, subject, found)
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
    crop = read_crop(path, record)
    steps = pipeline.sampling.steps
    watch = InputStatistics(pipeline.network, layers, steps, channels=channels)
    sample_watched(pipeline, watch, crop, seed)
    return watch.result()


def read_crop(path: Path, record: CalibrationImage) -> Tensor:
    """The crop of an image that a record names, [1, 3, height, width] in 0 ... 1.

    Raises:
        ImageError: the image is damaged.
    """
    return read_image(path).rgb[
        ...,
        record.top : record.top + record.height,
        record.left : record.left + record.width,
    ]


def _as_tensors(inputs: LayerInputs) -> dict[str, Tensor]:
    tensors = {"mean_squares": inputs.mean_squares}
    for index, (maximum, mean) in enumerate(
        zip(inputs.maximum, inputs.channel_mean_squares, strict=True)
    ):
        tensors[f"maximum.{index}"] = maximum
        tensors[f"channel_mean_square.{index}"] = mean
    return tensors


def _subject(layers: Sequence[str], record: CalibrationImage, seed: int, channels: bool) -> str:
    """What one image's result depends on, as far as the work folder's plan does not say it."""
    asked = {"layers": list(layers), "image": record.model_dump(), "seed": seed}
    return json.dumps({**asked, "channels": channels}, sort_keys=True)


def _read_result(file: Path, subject: str) -> dict[str, Tensor] | None:
    """One image's result, or None where there is none, or a damaged one."""
    try:
        return read_sealed(file, subject).tensors
    except PackError:
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
