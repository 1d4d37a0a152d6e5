"""Whether a build goes by second moments of layers' inputs, where only its recipe says so.

They take a network to run, and time: what nobody asked for by name may not take longer than a probe
that nobody asked for (`planner.probe.default_recipe`). So what `qplan probe` found on a GPU gives
bits by sensitivity on a machine without one, too, and weights that are rounded to nearest, with
factors of the weights alone, and not smoothed.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from math import inf

import torch

from artifacts.checkpoint.reader import Checkpoint
from planner.build.base_model import BaseModel
from planner.calibrate.cost import forward_operations, moments_passes
from planner.calibrate.pipelines import default_crop_px, vae_factor
from planner.moments.gather import group_layers, moment_owners
from planner.moments.kept import used_for, without_moments
from planner.moments.pictures import moment_settings
from planner.probe.default_recipe import MOST_OPERATIONS
from planner.probe.run import ProbeSettings
from planner.settings import BuildSettings
from schemas.errors import UsageError

NOTHING_TO_RUN = "without VAE and prompts there are no inputs to go by: {instead}"
INSIST = "{option} insists"
ASKING = {"weight_rounding": "gptq", "factor_fit": "outputs", "smoothing": "balance"}
"""Choices by which a user asks for moments by name."""


def asks_for_moments(chosen: Mapping[str, object]) -> bool:
    """Whether a user chose what needs moments; ``chosen`` has fields of `BuildSettings`."""
    return any(chosen.get(name) == choice for name, choice in ASKING.items())


def settle_moments(
    settings: BuildSettings,
    checkpoint: Checkpoint,
    base: BaseModel,
    probe: ProbeSettings,
    device: torch.device,
    *,
    asked: bool,
) -> tuple[BuildSettings, list[str]]:
    """Settings that can be built in sensible time; with notes for the user.

    Args:
        settings: of the build.
        checkpoint: the network.
        base: what goes beside the transformer.
        probe: the pictures of the probe; see `planner.moments.pictures`.
        device: where.
        asked: whether the user chose what needs them; then nothing else will do.

    Raises:
        UsageError: the user chose it, and there is nothing to run the network with.
        CheckpointError: the autoencoder's configuration is damaged.
    """
    if not settings.uses_moments:
        return settings, []
    without = replace(
        settings,
        weight_rounding="nearest",
        factor_fit="weight",
        smoothing="none" if settings.balances else settings.smoothing,
    )
    losses = {
        "weights rounded to nearest": settings.rounds_by_moments,
        "factors fitted to weights": settings.fits_factors_to_outputs,
        "layers not smoothed": settings.balances,
    }
    instead = ", ".join(loss for loss, suffered in losses.items() if suffered)
    if not base.can_run:
        if not asked:
            return without, [NOTHING_TO_RUN.format(instead=instead)]
        needed = "image encoder" if base.reads_picture else "prompts"
        raise UsageError(
            f"{used_for(settings)} runs the network and needs VAE and {needed}",
            hint=f"give --base, or {without_moments(settings)}",
        )
    most = MOST_OPERATIONS.get(device.type, inf)
    if asked or (operations := _operations(settings, checkpoint, base, probe)) <= most:
        return settings, []
    fields = asdict(settings)
    option = next(
        f"--{name.replace('_', '-')} {choice}"
        for name, choice in ASKING.items()
        if fields[name] == choice
    )
    return without, [
        f"{instead}: {used_for(settings)} would run the network with {operations / 1e12:,.0f}"
        f" TFLOP, and unasked {most / 1e12:,.0f} are the most on {device.type};"
        f" {INSIST.format(option=option)}"
    ]


def _operations(
    settings: BuildSettings, checkpoint: Checkpoint, base: BaseModel, probe: ProbeSettings
) -> float:
    settings = settings.resolved(checkpoint)
    architecture = checkpoint.architecture(settings.variant)
    groups = len(group_layers(architecture, moment_owners(checkpoint, settings)))
    return moments_passes(groups) * forward_operations(
        architecture,
        base.sampling,
        text_tokens=base.condition_tokens(architecture),
        vae_factor=vae_factor(base),
        pictures=moment_settings(probe).pictures,
        crop_px=probe.crop_px or default_crop_px(base),
    )
