"""Named recipes: quantization methods, and ablations of ours, as choices over the same settings.

So that methods are compared in one harness, each is a short declaration of what differs from
Q-DiT4SR's settings; ranks and every other number stay the user's to choose.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from planner.settings import BuildSettings
from planner.target import Target
from schemas.errors import UsageError

DEFAULT_RECIPE = "standard"
"""What a build takes that can probe the network (`planner.probe.default_recipe`)."""
PAPER_RECIPE = "q-dit4sr"
"""What reads weights alone, as the paper has it."""


@dataclass(frozen=True)
class Recipe:
    """One method.

    Attributes:
        summary: one line for ``--help`` and documents.
        choices: fields of `BuildSettings` that differ from its defaults.
    """

    summary: str
    choices: Mapping[str, Any]


_NO_FACTORS = {"global_rank": 0, "local_rank": 0}
_UNIFORM = {"weight_allocation": "uniform", "timestep_allocation": "uniform"}
_ABSMAX = {"weight_scale": "absmax", "activation_scale": "absmax"}

RECIPES: dict[str, Recipe] = {
    "q-dit4sr": Recipe("rotation, H-SVD, VaSMP, and VaTMP where there is a calibration", {}),
    "q-dit4sr-residual": Recipe(
        "q-dit4sr, its VaSMP reading the residual after the factors instead of the whole weight",
        {"weight_statistic": "residual"},
    ),
    "standard": Recipe(
        "bits by what errors do to the final latent; 8-bit factors of twice the rank; better steps"
        " of tokens; rounding by GPTQ and factors fitted to what that leaves; a table of"
        " modulations",
        {
            "modulation": "table",
            "global_rank": 64,
            "local_rank": 16,
            "factor_bits": 8,
            "activation_scale": "blend",
            "weight_rounding": "gptq",
            "factor_fit": "outputs",
            "weight_statistic": "residual",
            "weight_allocation": "sensitivity",
            "timestep_allocation": "sensitivity",
        },
    ),
    "rtn": Recipe(
        "round to nearest: absmax scales, no rotation, no factors, the same bits everywhere",
        {"rotation": False, **_ABSMAX, **_NO_FACTORS, **_UNIFORM},
    ),
    "quarot": Recipe(
        "rotation and the Gaussian quantizer, no factors, the same bits everywhere",
        {**_NO_FACTORS, **_UNIFORM},
    ),
    "svdquant": Recipe(
        "global factors of smoothed weights, no rotation, the same bits everywhere; needs a"
        " calibration",
        {"rotation": False, "smoothing": "search", "local_rank": 0, **_ABSMAX, **_UNIFORM},
    ),
    "q-dit4sr-no-signs": Recipe("q-dit4sr, rotated without signs", {"rotation_signs": False}),
    "q-dit4sr-no-hsvd": Recipe("q-dit4sr without factors", _NO_FACTORS),
    "q-dit4sr-no-vasmp": Recipe(
        "q-dit4sr with the same weight bits in every layer", {"weight_allocation": "uniform"}
    ),
    "q-dit4sr-no-vatmp": Recipe(
        "q-dit4sr with the same activation bits at every timestep",
        {"timestep_allocation": "uniform"},
    ),
}


def recipe_settings(name: str, target: Target, **overrides: Any) -> BuildSettings:
    """Settings of the recipe called ``name``.

    Args:
        name: a key of `RECIPES`.
        target: mean bits to reach.
        overrides: fields of `BuildSettings`, which go before the recipe's own choices.

    Raises:
        UsageError: there is no such recipe or setting, or a value is out of range.
    """
    if name not in RECIPES:
        raise UsageError(f"there is no recipe {name!r}", hint="one of: " + ", ".join(RECIPES))
    known = [field.name for field in dataclasses.fields(BuildSettings)]
    for setting in overrides:
        if setting not in known:
            raise UsageError(f"there is no setting {setting!r}", hint="one of: " + ", ".join(known))
    return BuildSettings(target, recipe=name, **{**RECIPES[name].choices, **overrides})
