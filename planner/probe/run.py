"""The probe over several pictures, and the map of sensitivities that it gives."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from artifacts.checkpoint.reader import Checkpoint
from artifacts.family import Architecture
from planner.build.base_model import BaseModel
from planner.build.network_probe import active_linears
from planner.build.progress import Progress, Silent
from planner.calibrate.cost import probe_cost
from planner.calibrate.images import choose_images
from planner.calibrate.pipelines import (
    base_digest,
    default_crop_px,
    full_precision_pipeline,
    vae_factor,
)
from planner.calibrate.run import read_crop
from planner.calibrate.settings import CalibrationSettings
from planner.probe.image_probe import Sensitivities, probe_image
from planner.probe.kept_pictures import KeptPictures
from planner.probe.pictures import dead_leaves
from planner.timesteps import sampling_timesteps
from runtime.images.resizing import SCALE
from runtime.pipeline import Pipeline
from schemas.calibration import CalibrationImage
from schemas.errors import UsageError
from schemas.manifest import CalibrationRecord, Source
from schemas.sensitivity import LayerSensitivity, SensitivityMap

PICTURES, COTANGENTS = 2, 4
"""Of generated pictures; of photos as many as a calibration takes."""
PHOTO_COTANGENTS = 1
"""Another photo says more than another direction of the same one."""
SIGNIFICANT_DIGITS = 6
"""Of the numbers in the file: far more than allocation can tell apart."""


def usual_cotangents(folder: Path | None) -> int:
    """Random directions per picture unless told otherwise: of photos, or of generated ones."""
    return COTANGENTS if folder is None else PHOTO_COTANGENTS


@dataclass(frozen=True)
class ProbeSettings:
    """How to probe.

    Attributes:
        folder: low-resolution photos; None for generated pictures.
        pictures: how many.
        cotangents: random directions per picture.
        crop_px: side of a picture; None for what fills one tile.
        seed: of pictures, crops, noise and directions.
    """

    folder: Path | None = None
    pictures: int = PICTURES
    cotangents: int = COTANGENTS
    crop_px: int | None = None
    seed: int = 0


def probe_checkpoint(
    checkpoint: Checkpoint,
    variant: str | None,
    base: BaseModel,
    settings: ProbeSettings,
    *,
    device: torch.device,
    dtype: torch.dtype,
    keep: Path | None = None,
    report: Callable[[str], None] = lambda _line: None,
    progress: Progress | None = None,
) -> SensitivityMap:
    """Probe the unquantized network of a checkpoint.

    Args:
        checkpoint: the network.
        variant: which published network it is; None for the family's first.
        base: autoencoder, prompts and sampling settings to run with.
        settings: how to probe.
        device: where the network runs.
        dtype: of the network.
        keep: folder for what single pictures gave; what is there already is taken over. None for
            keeping nothing.
        report: told the predicted cost, in one line.
        progress: told about every picture.

    Raises:
        UsageError: there is no VAE, or no images, or they are larger than the network takes.
        ImageError: an image is damaged.
        ResourceError: the disk is full.
        KeyboardInterrupt: with a message that says what was kept.
    """
    crop_px = settings.crop_px or default_crop_px(base)
    architecture = checkpoint.architecture(variant)
    check_size(architecture, base.sampling.min_side_px, vae_factor(base), crop_px)
    pictures, images = probe_pictures(settings, crop_px)
    pipeline = full_precision_pipeline(checkpoint, variant, base, device, dtype)
    layers = list(active_linears(architecture))
    report(str(probe_cost(pipeline, len(pictures), crop_px, settings.cotangents)))
    source = Source(files=tuple(checkpoint.source_files()))
    sampling = CalibrationRecord(
        images=len(pictures),
        crop_px=crop_px,
        seed=settings.seed,
        steps=base.sampling.steps,
        guidance=base.sampling.guidance,
        shift=base.sampling.shift,
        start_sigma=base.sampling.start_sigma,
    )
    kept = None
    if keep is not None:
        subject = {
            "source": [file.sha256 for file in source.files],
            "variant": architecture.variant,
            "sampling": sampling.model_dump(mode="json", exclude={"images"}),
            "cotangents": settings.cotangents,
            "images": [record.model_dump(mode="json") for record in images],
            "base": base_digest(base),
            "device": f"{device.type} {dtype}",
            "versions": [version("qdit4sr"), torch.__version__],
        }
        kept = KeptPictures(keep, json.dumps(subject, sort_keys=True))
    found = _mean_over(pipeline, layers, pictures, settings, kept, progress or Silent())
    return SensitivityMap(
        source=source,
        variant=architecture.variant,
        sampling=sampling,
        cotangents=settings.cotangents,
        images=images,
        timesteps=sampling_timesteps(base.sampling),
        layers={
            name: LayerSensitivity(
                weight=_rounded(found.weight[index]),
                output=tuple(map(_rounded, found.output[index])),
                activation=tuple(map(_rounded, found.activation[index])),
            )
            for index, name in enumerate(layers)
        },
    )


def check_size(architecture: Architecture, min_side_px: int, vae_factor: int, crop_px: int) -> None:
    """Make sure that the network takes a probe's pictures whole: they are not cut into tiles.

    Args:
        architecture: the network.
        min_side_px: what smaller enlarged pictures are scaled up to.
        vae_factor: image pixels that one latent pixel spans along a side.
        crop_px: side of a low-resolution picture.

    Raises:
        UsageError: it does not.
    """
    side_px = max(SCALE * crop_px, min_side_px)
    most_px = architecture.latent_size.largest_tile * vae_factor
    if side_px > most_px:
        raise UsageError(
            f"the enlarged picture would have {side_px} px, and the network takes at most"
            f" {most_px}",
            hint="smaller pictures, or a base and a sampling.json that belong to the network",
        )


def probe_pictures(
    settings: ProbeSettings, crop_px: int
) -> tuple[list[Tensor], tuple[CalibrationImage, ...]]:
    """The pictures of a probe, each [1, 3, side, side], and where they are cut from photos.

    Raises:
        UsageError: there are no images.
        ImageError: an image is damaged.
    """
    if settings.folder is None:
        seeds = range(settings.seed, settings.seed + settings.pictures)
        return [dead_leaves(crop_px, crop_px, seed) for seed in seeds], ()
    drawn = CalibrationSettings(images=settings.pictures, crop_px=crop_px, seed=settings.seed)
    images = choose_images(settings.folder, drawn, crop_px)
    crops = [read_crop(p, r) for p, r in zip(images.paths, images.records, strict=True)]
    return crops, images.records


def _mean_over(
    pipeline: Pipeline,
    layers: Sequence[str],
    pictures: Sequence[Tensor],
    settings: ProbeSettings,
    kept: KeptPictures | None,
    progress: Progress,
) -> Sensitivities:
    done: list[Sensitivities] = []
    for index, picture in progress.track(list(enumerate(pictures)), "probe"):
        found = None if kept is None else kept.find(index)
        if found is None:
            try:
                found = probe_image(
                    pipeline,
                    layers,
                    picture,
                    cotangents=settings.cotangents,
                    seed=settings.seed + index,
                )
            except KeyboardInterrupt:
                if kept is None:
                    raise
                raise KeyboardInterrupt(
                    f"{index} of {len(pictures)} pictures of the probe are kept; the same command"
                    " goes on from there"
                ) from None
            if kept is not None:
                kept.keep(index, found)
        done.append(found)
    return Sensitivities(
        *(
            torch.stack([getattr(one, part) for one in done]).mean(0)
            for part in ("weight", "output", "activation")
        )
    )


def _rounded(value: Tensor) -> float:
    return float(f"{float(value):.{SIGNIFICANT_DIGITS}g}")
