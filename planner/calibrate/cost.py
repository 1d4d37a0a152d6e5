"""What a calibration will take, said before it begins."""

import time
from dataclasses import dataclass, replace

import torch

from planner.calibrate.images import ChosenImages
from planner.estimate.accounting import network_work
from runtime.images.resizing import SCALE
from runtime.pipeline import Pipeline


@dataclass(frozen=True)
class Cost:
    """What a pass will take.

    Attributes:
        what: of what pass this is the cost.
        images, steps, branches: their product is the number of forward passes, for one tile each.
        passes: forward passes that one of them takes as long as.
        operations: floating-point operations, two for a multiply-accumulate, block linears alone.
        seconds: at the speed at which this machine multiplies matrices, in the network's dtype.
    """

    images: int
    steps: int
    branches: int
    operations: float
    seconds: float
    what: str = "calibration"
    passes: int = 1

    def __str__(self) -> str:
        passes = f" x {self.passes} passes" if self.passes > 1 else ""
        return (
            f"{self.what}: {self.images} images x {self.steps} steps x {self.branches} guidance"
            f" branches{passes}, {self.operations / 1e12:,.1f} TFLOP, at least"
            f" {_duration(self.seconds)} on this machine"
        )


def estimate_cost(pipeline: Pipeline, images: ChosenImages) -> Cost:
    """Predict a calibration from the size of its crops and the speed of one matrix product."""
    return _cost(pipeline, len(images.paths), images.crop_px)


def probe_cost(pipeline: Pipeline, pictures: int, crop_px: int, cotangents: int) -> Cost:
    """Predict a probe likewise.

    Per step there is one pass forwards, one that keeps its inner values (and computes them twice
    where it does not keep them), and one backwards, twice as long, for every cotangent.
    """
    cost = _cost(pipeline, pictures, crop_px)
    passes = 3 + 2 * cotangents
    return replace(
        cost,
        what="probe",
        passes=passes,
        operations=passes * cost.operations,
        seconds=passes * cost.seconds,
    )


def _cost(pipeline: Pipeline, images: int, crop_px: int) -> Cost:
    """Of one forward trajectory for each image."""
    settings = pipeline.sampling
    branches = 1 if settings.guidance == 1 else 2
    token_px = pipeline.vae_factor * pipeline.patch_size
    side = max(SCALE * crop_px, settings.min_side_px) // token_px * token_px
    text = len(pipeline.prompts.positive_embeds)
    streams = pipeline.architecture.count_tokens(side, text, vae_factor=pipeline.vae_factor)
    work = network_work(pipeline.architecture, streams)
    operations = 2.0 * work.dense * images * settings.steps * branches
    speed = multiplication_speed(pipeline.device, pipeline.dtype)
    return Cost(images, settings.steps, branches, operations, operations / speed)


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
