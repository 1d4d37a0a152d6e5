"""Whether a build can round weights as its settings ask."""

from collections.abc import Sequence
from dataclasses import replace

from planner.build.base_model import BaseModel
from planner.moments.kept import SecondMoments
from planner.settings import BuildSettings
from schemas.errors import UsageError

FELL_BACK = "without VAE and prompts there are no inputs to round weights by: rounded to nearest"


def settle_rounding(
    settings: BuildSettings, base: BaseModel, *, asked: bool
) -> tuple[BuildSettings, list[str]]:
    """Settings that can be built, where only the recipe wants GPTQ; with notes for the user.

    Args:
        settings: of the build.
        base: what goes beside the transformer.
        asked: whether the user chose GPTQ; then nothing else will do.

    Raises:
        UsageError: the user chose it, and there is nothing to run the network with.
    """
    if not settings.uses_moments or (base.folder is not None and base.prompts is not None):
        return settings, []
    if asked:
        raise UsageError(
            "rounding by GPTQ runs the network and needs VAE and prompts",
            hint="give --base, or --weight-rounding nearest",
        )
    return replace(settings, weight_rounding="nearest"), [FELL_BACK]


def check_rounding(
    settings: BuildSettings, moments: SecondMoments | None, layers: Sequence[str]
) -> None:
    """Make sure that there is what the settings round by.

    Raises:
        UsageError: there is not.
    """
    if not settings.uses_moments:
        return
    known = {} if moments is None else moments.owners
    missing = [name for name in layers if name not in known]
    if missing:
        raise UsageError(
            f"rounding by GPTQ needs second moments of inputs, and {len(missing)} layers have none",
            hint="give --base, or --weight-rounding nearest",
        )
