"""What a calibration will take, said before it begins."""

import time
from dataclasses import dataclass

import torch

from planner.calibrate.images import ChosenImages
from planner.estimate.accounting import network_work
from runtime.images.resizing import SCALE
from runtime.pipeline import Pipeline


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
