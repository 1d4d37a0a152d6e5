"""Which recipe a build takes when nobody names one.

`standard` decides bits by a probe, which runs the network: it needs autoencoder and prompts, and
takes as long as some hundred pictures. So a build without ``--recipe`` is `standard` where a probe
can run in sensible time, and `q-dit4sr`, which reads weights alone, elsewhere. What is sensible
goes by the number of operations and the kind of device, never by a clock: a build that is repeated
or resumed on the same kind of device decides alike.
"""

from math import inf

import torch

from artifacts.family import Architecture
from planner.build.base_model import BaseModel
from planner.calibrate.cost import forward_operations, probe_passes
from planner.calibrate.pipelines import default_crop_px, vae_factor
from planner.probe.run import ProbeSettings, check_size
from planner.recipe_choice import FROM_FILE, RecipeChoice, fallback, recipe_without_base
from planner.recipes import DEFAULT_RECIPE
from schemas.errors import UsageError

MOST_OPERATIONS = {"cpu": 300e12, "cuda": 100_000e12}
"""Floating-point operations of a probe that nobody asked for, by kind of device.

At most an hour at 100 GFLOP/s, a usual CPU, and half an hour at 60 TFLOP/s, a usual GPU. The
bundled model takes 1.5e12, DiT4SR 7,500e12; with 32 photos seven times as much.
"""
INSIST = "--recipe standard insists"


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
    if not base.can_run:
        return recipe_without_base(reads_picture=base.reads_picture)
    crop_px = probe.crop_px or default_crop_px(base)
    factor = vae_factor(base)
    try:
        check_size(architecture, base.sampling.min_side_px, factor, crop_px)
    except UsageError as cause:
        return fallback(f"cannot probe: {cause}")
    operations = probe_passes(probe.cotangents) * forward_operations(
        architecture,
        base.sampling,
        text_tokens=base.condition_tokens(architecture),
        vae_factor=factor,
        pictures=probe.pictures,
        crop_px=crop_px,
    )
    most = MOST_OPERATIONS.get(device.type, inf)
    if operations > most:
        return fallback(
            f"would probe the network with {operations / 1e12:,.0f} TFLOP, and unasked"
            f" {most / 1e12:,.0f} are the most on {device.type}; {INSIST}, {FROM_FILE}"
        )
    return RecipeChoice(DEFAULT_RECIPE)
