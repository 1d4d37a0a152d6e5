"""Which recipe a build takes when nobody names one.

`standard` decides bits by a probe, which runs the network: it needs autoencoder and prompts, and
takes as long as some hundred pictures. So a build without ``--recipe`` is `standard` where a probe
can run in sensible time, and `q-dit4sr`, which reads weights alone, elsewhere. What is sensible
goes by the number of operations and the kind of device, never by a clock: a build that is repeated
or resumed on the same kind of device decides alike.
"""

from collections.abc import Collection
from dataclasses import dataclass
from math import inf

import torch

from artifacts.autoencoder.files import CONFIG, read_config
from artifacts.family import Architecture
from planner.build.base_model import BaseModel
from planner.calibrate.cost import probe_operations
from planner.calibrate.pipelines import default_crop_px, vae_folder
from planner.probe.run import ProbeSettings, check_size
from planner.recipes import DEFAULT_RECIPE, PAPER_RECIPE
from schemas.errors import CheckpointError, UsageError

MOST_OPERATIONS = {"cpu": 300e12, "cuda": 100_000e12}
"""Floating-point operations of a probe that nobody asked for, by kind of device.

At most an hour at 100 GFLOP/s, a usual CPU, and half an hour at 60 TFLOP/s, a usual GPU. The
bundled model takes 3e12, DiT4SR 7,500e12.
"""
INSIST = "--recipe standard insists"
FROM_FILE = "--recipe standard --sensitivity FILE takes what `qplan probe` found elsewhere"

OF_STANDARD = ("budget", "sensitivity")
"""Settings and files that go by what `DEFAULT_RECIPE` alone does."""
OF_PAPER = {
    "weight_allocation": "--vasmp",
    "timestep_allocation": "--vatmp",
    "segments": "--segments",
    "allocator": "--allocator",
    "weight_statistic": "--weight-statistic",
    "calibration": "--calibration",
}
"""Those that are about VaSMP or VaTMP, with their options."""


@dataclass(frozen=True)
class RecipeChoice:
    """A recipe, and why.

    Attributes:
        name: of the recipe.
        notes: for the user, where it is neither named nor `DEFAULT_RECIPE`; one line each.
    """

    name: str
    notes: tuple[str, ...] = ()


def asked_recipe(name: str | None, chosen: Collection[str]) -> RecipeChoice | None:
    """The recipe that a user named, or whose options were set; None where any will do.

    Args:
        name: of ``--recipe``.
        chosen: fields of `planner.settings.BuildSettings` that have a value, with ``sensitivity``
            and ``calibration`` for the files.
    """
    if name is not None:
        return RecipeChoice(name)
    if any(option in chosen for option in OF_STANDARD):
        return RecipeChoice(DEFAULT_RECIPE)
    for field, option in OF_PAPER.items():
        if field in chosen:
            return RecipeChoice(
                PAPER_RECIPE,
                (f"recipe {PAPER_RECIPE}, which {option} belongs to; --recipe chooses another",),
            )
    return None


def default_recipe(
    architecture: Architecture, base: BaseModel, probe: ProbeSettings, device: torch.device
) -> RecipeChoice:
    """The recipe of a build whose options imply none.

    Args:
        architecture: the network.
        base: what goes beside it.
        probe: how a build with `standard` would probe.
        device: where.

    Raises:
        CheckpointError: the autoencoder's configuration is damaged.
    """
    if base.folder is None or base.prompts is None:
        return _fallback(f"cannot probe without VAE and prompts; --base has them, {FROM_FILE}")
    crop_px = probe.crop_px or default_crop_px(base)
    factor = read_config(vae_folder(base) / CONFIG, error=CheckpointError).factor
    try:
        check_size(architecture, base.sampling.min_side_px, factor, crop_px)
    except UsageError as cause:
        return _fallback(f"cannot probe: {cause}")
    operations = probe_operations(
        architecture,
        base.sampling,
        text_tokens=len(base.prompts["positive.embeds"]),
        vae_factor=factor,
        pictures=probe.pictures,
        crop_px=crop_px,
        cotangents=probe.cotangents,
    )
    most = MOST_OPERATIONS.get(device.type, inf)
    if operations > most:
        return _fallback(
            f"would probe the network with {operations / 1e12:,.0f} TFLOP, and unasked"
            f" {most / 1e12:,.0f} are the most on {device.type}; {INSIST}, {FROM_FILE}"
        )
    return RecipeChoice(DEFAULT_RECIPE)


def _fallback(reason: str) -> RecipeChoice:
    return RecipeChoice(PAPER_RECIPE, (f"recipe {PAPER_RECIPE}: {DEFAULT_RECIPE} {reason}",))
