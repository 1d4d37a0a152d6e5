"""Run the unquantized network on some pictures, and sum up what its layers are fed.

The moments are those of all sampling steps and both guidance branches. A step counts as much as an
error of the layer's output at that step does to the final latent, where sensitivities are at hand;
else all steps count alike.

As many layers are measured at once as fit a bound on memory, so the pictures are sampled several
times: DiT4SR's moments fill 10 GB. After every picture the sums of its group are on disk, from
where an interrupted measurement goes on.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from artifacts.checkpoint.reader import Checkpoint
from artifacts.family import Architecture
from artifacts.files.safetensors_io import Header
from planner.build.base_model import BaseModel
from planner.build.inventory import take_inventory
from planner.build.network_probe import shared_inputs
from planner.build.progress import Progress, Silent
from planner.calibrate.cost import moments_cost
from planner.calibrate.layer_watch import sample_watched
from planner.calibrate.pipelines import (
    base_digest,
    default_crop_px,
    full_precision_pipeline,
    vae_factor,
)
from planner.moments.kept import KeptMoments, SecondMoments
from planner.moments.pictures import moment_pictures, moment_settings
from planner.moments.watch import InputMoments
from planner.probe.run import ProbeSettings, check_size
from planner.settings import BuildSettings
from planner.timesteps import sampling_timesteps
from runtime.pipeline import Pipeline
from schemas.sensitivity import SensitivityMap

MOST_BYTES = 4 * 2**30
"""Of the moments measured at once, on the device that runs the network."""


def gather_moments(
    checkpoint: Checkpoint,
    settings: BuildSettings,
    base: BaseModel,
    probe: ProbeSettings,
    sensitivity: SensitivityMap | None,
    keep: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    report: Callable[[str], None] = lambda _line: None,
    progress: Progress | None = None,
) -> SecondMoments:
    """Measure the second moments of every layer that ``settings`` quantize.

    Args:
        checkpoint: the network.
        settings: of the build.
        base: autoencoder, prompts and sampling settings to run with.
        probe: the pictures of the probe; see `planner.moments.pictures`.
        sensitivity: what steps count by; None for all alike.
        keep: folder for the moments; left to the caller to remove.
        device: where the network runs.
        dtype: of the network; moments are in float32.
        report: told the predicted cost, in one line.
        progress: told about every group of layers and picture.

    Raises:
        UsageError: there is no VAE, or no images, or they are larger than the network takes.
        ImageError: an image is damaged.
        ResourceError: the disk is full.
        KeyboardInterrupt: with a message that says what was kept.
    """
    settings = settings.resolved(checkpoint)
    architecture = checkpoint.architecture(settings.variant)
    owners = moment_owners(checkpoint, settings)
    weights = _step_weights(owners, sensitivity, sampling_timesteps(base.sampling))
    groups = group_layers(architecture, owners)

    crop_px = probe.crop_px or default_crop_px(base)
    check_size(architecture, base.sampling.min_side_px, vae_factor(base), crop_px)
    pictures, images = moment_pictures(moment_settings(probe), crop_px)
    pipeline = full_precision_pipeline(checkpoint, settings.variant, base, device, dtype)
    report(str(moments_cost(pipeline, len(pictures), crop_px, len(groups))))
    subject = {
        "source": [file.sha256 for file in checkpoint.source_files()],
        "variant": settings.variant,
        "sampling": base.sampling.model_dump(mode="json"),
        "pictures": ["worn", len(pictures), crop_px, probe.seed],
        "images": [record.model_dump(mode="json") for record in images],
        "weights": weights,
        "base": base_digest(base),
        "device": f"{device.type} {dtype}",
        "versions": [version("qdit4sr"), torch.__version__],
    }
    kept = KeptMoments(keep, json.dumps(subject, sort_keys=True))
    files: dict[str, Header] = {}
    rounds = [(number, i) for number in range(len(groups)) for i in range(len(pictures))]
    sums: dict[str, Tensor] = {}
    done = 0
    header: Header | None = None
    for number, index in (progress or Silent()).track(rounds, "second moments"):
        group = groups[number]
        if index == 0:
            done, sums, header = kept.find(number, group)
        if index >= done:
            try:
                counted = {name: weights[name] for name in group}
                found = _picture_moments(pipeline, counted, pictures[index], probe.seed + index)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"second moments of {number} of {len(groups)} groups of layers are kept; the"
                    " same command goes on from there"
                ) from None
            sums = {name: sums[name] + new if sums else new for name, new in found.items()}
            header = kept.keep(number, group, index + 1, sums)
        if index == len(pictures) - 1:
            assert header is not None
            files |= dict.fromkeys(group, header)
            sums = {}
    return SecondMoments(kept.digest, owners, files)


def moment_owners(checkpoint: Checkpoint, settings: BuildSettings) -> dict[str, str]:
    """Every layer that ``settings`` quantize -> the layer whose moment it shares.

    Raises:
        UsageError: a pattern finds no layer.
        CheckpointError: a tensor cannot be read.
    """
    layers = take_inventory(checkpoint, settings).quantized
    return shared_inputs(checkpoint.architecture(settings.variant), layers)


def group_layers(architecture: Architecture, owners: Mapping[str, str]) -> list[list[str]]:
    """Cut the owners, in their order, into groups whose moments take at most `MOST_BYTES`.

    A single one may take more.
    """
    groups: list[list[str]] = []
    used = 0
    for name in dict.fromkeys(owners.values()):
        needed = 4 * architecture.quantizable[name].in_features ** 2
        if not groups or used + needed > MOST_BYTES:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += needed
    return groups


def _step_weights(
    owners: Mapping[str, str], sensitivity: SensitivityMap | None, timesteps: Sequence[float]
) -> dict[str, list[float]]:
    """Owner -> what each step counts, on average 1: its layers' output sensitivities, added up.

    A sensitivity of other timesteps is read at the nearest of its own, as a pack's bit grid is.
    """
    steps = len(timesteps)
    found: dict[str, list[float]] = {owner: [0.0] * steps for owner in owners.values()}
    if sensitivity is not None:
        known = sensitivity.timesteps
        nearest = [min(range(len(known)), key=lambda i: abs(known[i] - t)) for t in timesteps]
        for layer, owner in owners.items():
            output = sensitivity.layers[layer].output
            for step, read in enumerate(nearest):
                found[owner][step] += output[read]
    for owner, weights in found.items():
        total = sum(weights)
        found[owner] = [w * steps / total for w in weights] if total else [1.0] * steps
    return found


def _picture_moments(
    pipeline: Pipeline, weights: Mapping[str, Sequence[float]], rgb: Tensor, seed: int
) -> dict[str, Tensor]:
    """One picture's sums, on the CPU."""
    watch = InputMoments(pipeline.network, weights)
    sample_watched(pipeline, watch, rgb, seed)
    return {name: total.cpu() for name, total in watch.sums.items()}
