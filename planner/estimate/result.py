"""What ``qplan estimate`` says, as plain data; `planner.estimate.tables` lays it out."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from artifacts.family import AttentionWork
from planner.estimate.accounting import NetworkSize, NetworkWork
from planner.estimate.costs import Costs
from planner.estimate.distortion import Distortion
from planner.estimate.mean_bits import MeanBits
from planner.estimate.runs import NetworkRun
from planner.estimate.stored_bytes import CheckpointBytes, PackBytes
from planner.settings import BuildSettings
from schemas.errors import UsageError

_ALWAYS_SHOWN = (
    "recipe",
    "global_rank",
    "local_rank",
    "minimum_bits",
    "maximum_bits",
    "rotation_signs",
)


@dataclass(frozen=True)
class ImageSettings:
    """The image that operations are counted for.

    Attributes:
        steps: forward passes of one image.
        resolution_px: side of a square image.
        text_tokens: length of the prompt.

    Raises:
        UsageError: there is no step.
    """

    steps: int = 40
    resolution_px: int = 512
    text_tokens: int = 333

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"{self.steps} steps", hint="give at least 1")


@dataclass(frozen=True)
class LayerEstimate:
    """One quantized layer: its size, its bits, and its expected signal-to-noise ratio.

    Attributes:
        snr_db: of the quantized residual against itself, -10 log10 kappa(bits).
    """

    parameters: int
    weight_bits: int
    snr_db: float


@dataclass(frozen=True)
class Estimate:
    """Everything ``qplan estimate`` prints, as plain data. Bytes and operations are not rounded.

    ``size``, ``work`` and ``attention`` are those of the whole network, ``own`` of the settings',
    ``layers`` the quantized ones, ``mean_bits`` theirs, weighted by work, ``runs`` what a
    build runs the network for, ``kept`` the layers that the settings keep in 16 bits.
    ``modulation_layers`` block linears are left out because their results are tabled, which saves
    ``modulation_macs`` multiply-accumulates of a pass; ``modulation_choices`` has the pack's bytes
    for every choice of what is stored of modulations, at the same target.
    """

    settings: BuildSettings
    image: ImageSettings
    tokens: Mapping[str, int]
    size: NetworkSize
    work: NetworkWork
    attention: AttentionWork
    full_precision: Costs
    paper_ladder: dict[str, Costs]
    own: Costs
    checkpoint: CheckpointBytes
    pack: PackBytes
    distortion: Distortion
    layers: dict[str, LayerEstimate]
    mean_bits: MeanBits
    runs: Mapping[str, NetworkRun] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    modulation_layers: int = 0
    modulation_macs: int = 0
    modulation_choices: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Give the estimate as JSON values, with totals that the dataclasses compute.

        ``settings`` holds the image's, a few of the build's always, and whatever else differs from
        the paper's recipe; ``kept`` is there only where a layer is kept in 16 bits.
        """
        values = asdict(self)
        values |= {"target": asdict(self.settings.target), "variant": self.settings.variant}
        values["settings"] = self._shown_settings() | values.pop("image")
        values["pack"]["total"] = self.pack.total
        values["size"]["other_parameters"] = self.size.other_parameters
        values["kept"] = list(self.kept)
        if not self.kept:
            del values["kept"]
        for name in ("runs", "modulation_layers", "modulation_macs", "modulation_choices"):
            if not values[name]:
                del values[name]
        return values

    def _shown_settings(self) -> dict[str, Any]:
        apart = ("target", "variant")  # with a place of their own
        values = self.settings.recorded() | {"recipe": self.settings.recipe}
        defaults = {field.name: field.default for field in fields(self.settings)}
        return {
            name: value
            for name, value in values.items()
            if name not in apart
            and (name in _ALWAYS_SHOWN or getattr(self.settings, name) != defaults[name])
        }
