"""How often a build runs the network before it can decide: probe, second moments, calibration.

A build says so before each of them; here it is known before any weights are at hand. Pictures fill
one tile by the published sampling and autoencoder, which a checkpoint may have others of.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from artifacts.family import Architecture
from planner.build.network_probe import shared_inputs
from planner.calibrate.cost import forward_operations, moments_passes, probe_passes
from planner.calibrate.settings import IMAGES
from planner.moments.gather import group_layers
from planner.moments.pictures import moment_settings
from planner.probe.run import COTANGENTS, PICTURES, ProbeSettings
from planner.settings import BuildSettings


@dataclass(frozen=True)
class NetworkRun:
    """One of the times that a build runs the unquantized network.

    Attributes:
        pictures: how many are sampled.
        passes: forward passes that every step of one takes as long as, in each guidance branch.
        operations: floating-point operations, two for a multiply-accumulate, block linears alone.
    """

    pictures: int
    passes: int
    operations: float


def network_runs(
    architecture: Architecture,
    settings: BuildSettings,
    layers: Sequence[str],
    steps: int,
    text_tokens: int,
) -> dict[str, NetworkRun]:
    """What it is for -> what it takes, in the order of a build; empty for one that runs nothing.

    Args:
        architecture: the network.
        settings: those of the build.
        layers: what they quantize.
        steps: sampling steps.
        text_tokens: length of the prompt, or number of the picture's features.
    """
    sampling = architecture.family.sampling.model_copy(update={"steps": steps})
    factor = architecture.family.vae_factor
    one = forward_operations(
        architecture,
        sampling,
        text_tokens=text_tokens,
        vae_factor=factor,
        pictures=1,
        crop_px=sampling.tile_latent * factor // sampling.upscale,
    )
    planned = {}
    if settings.uses_sensitivity:
        planned["probe"] = PICTURES, probe_passes(COTANGENTS)
    if settings.uses_calibration:
        planned["calibration"] = IMAGES, 1
    if settings.uses_moments:
        groups = group_layers(architecture, shared_inputs(architecture, layers))
        pictures = moment_settings(ProbeSettings()).pictures
        planned["second moments"] = pictures, moments_passes(len(groups))
    return {
        what: NetworkRun(pictures, passes, pictures * passes * one)
        for what, (pictures, passes) in planned.items()
    }
