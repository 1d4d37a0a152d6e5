"""What a calibration will take, said before it begins."""

import time
from dataclasses import dataclass, replace

import torch

from artifacts.family import Architecture
from planner.calibrate.images import ChosenImages
from planner.estimate.accounting import network_work
from runtime.images.resizing import SCALE
from runtime.pipeline import Pipeline
from runtime.sampling.settings import UpscaleSettings
from schemas.manifest import SamplingDefaults


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
    """Predict a probe likewise."""
    return _repeated(_cost(pipeline, pictures, crop_px), "probe", probe_passes(cotangents))


def moments_cost(pipeline: Pipeline, pictures: int, crop_px: int, groups: int) -> Cost:
    """Predict the measuring of second moments, in so many groups of layers."""
    cost = _cost(pipeline, pictures, crop_px)
    return _repeated(cost, "second moments", moments_passes(groups))


def _repeated(cost: Cost, what: str, passes: int) -> Cost:
    """``cost`` so many times over."""
    return replace(
        cost,
        what=what,
        passes=passes,
        operations=passes * cost.operations,
        seconds=passes * cost.seconds,
    )


def moments_passes(groups: int) -> int:
    """Forward passes that second moments take as long as: one per group, and what sums them up.

    A layer's moment takes about the operations of the layer itself, once for all groups.
    """
    return groups + 1


def probe_passes(cotangents: int) -> int:
    """Forward passes that a probe takes as long as, for every step.

    There is one pass forwards, one that keeps its inner values (and computes them twice where it
    does not keep them), and one backwards, twice as long, for every cotangent.
    """
    return 3 + 2 * cotangents


def forward_operations(
    architecture: Architecture,
    sampling: SamplingDefaults,
    *,
    text_tokens: int,
    vae_factor: int,
    pictures: int,
    crop_px: int,
) -> float:
    """Floating-point operations of one pass forwards a step, before there is a pipeline to run it.

    Times `probe_passes` they are a probe's, times `moments_passes` those of second moments.

    Args:
        architecture: the network.
        sampling: how the network is sampled.
        text_tokens: length of the prompts.
        vae_factor: image pixels that one latent pixel spans along a side.
        pictures: how many.
        crop_px: side of a low-resolution picture, at most what fills one tile.
    """
    settings = UpscaleSettings.from_manifest(sampling)
    return pictures * _trajectory_operations(
        architecture, settings, text_tokens, vae_factor, crop_px
    )


def _cost(pipeline: Pipeline, images: int, crop_px: int) -> Cost:
    """Of one forward trajectory for each image."""
    settings = pipeline.sampling
    operations = images * _trajectory_operations(
        pipeline.architecture,
        settings,
        len(pipeline.prompts.positive_embeds) or pipeline.architecture.family.text_tokens,
        pipeline.vae_factor,
        crop_px,
    )
    speed = multiplication_speed(pipeline.device, pipeline.dtype)
    branches = _branches(settings)
    return Cost(images, settings.steps, branches, operations, operations / speed)


def _trajectory_operations(
    architecture: Architecture,
    settings: UpscaleSettings,
    text_tokens: int,
    vae_factor: int,
    crop_px: int,
) -> float:
    """Of one image's forward passes, in all steps and guidance branches."""
    token_px = vae_factor * architecture.latent_size.patch_size
    side = max(SCALE * crop_px, settings.min_side_px) // token_px * token_px
    streams = architecture.count_tokens(side, text_tokens, vae_factor=vae_factor)
    work = network_work(architecture, streams)
    return 2.0 * work.dense * settings.steps * _branches(settings)


def _branches(settings: UpscaleSettings) -> int:
    """Guidance branches: a scale of 1 asks for the positive prompt alone."""
    return 1 if settings.guidance == 1 else 2


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
