"""What ``qplan estimate`` says before anything is built: sizes, operations, expected distortion.

``estimate`` computes, ``Estimate.to_json`` hands the numbers on, and `planner.estimate.tables` lays
them out.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from math import prod
from typing import Any, TypedDict, get_args

from artifacts.codec.gaussian_quantizer import gaussian_level
from artifacts.family import Architecture, AttentionWork
from planner.allocate.table_share import TableShare
from planner.allocate.vasmp import LayerStatistics
from planner.allocate.weight_bits import uniform_bits, weight_bits
from planner.build.inventory import left_to_table
from planner.build.network_probe import find_active_tensors
from planner.build.table_budget import table_share
from planner.estimate.accounting import (
    FULL_PRECISION_BITS,
    HALF_PRECISION_BITS,
    NetworkSize,
    NetworkWork,
    attention_operations,
    full_precision_operations,
    network_size,
    network_work,
    paper_flops,
    paper_operations,
    paper_parameters,
    true_operations,
)
from planner.estimate.distortion import Distortion, decibels, predict_distortion
from planner.estimate.stored_bytes import (
    PROMPTS,
    CheckpointBytes,
    PackBytes,
    checkpoint_bytes,
    pack_bytes,
    table_bytes,
)
from planner.settings import BuildSettings, Modulation
from planner.target import Target
from schemas.errors import UsageError

PAPER_LOCAL_RANKS = (4, 8, 16, 32)
"""The values of r_L that the paper's tables compare, all with r_G = 32."""
PAPER_GLOBAL_RANK = 32
PAPER_WEIGHT_BITS = 4
PAPER_ACTIVATION_BITS = (4, 6)

_ALWAYS_SHOWN = (
    "recipe",
    "global_rank",
    "local_rank",
    "minimum_bits",
    "maximum_bits",
    "rotation_signs",
)


class _Bits(TypedDict):
    weight_bits: int | float
    activation_bits: int | float


class _Counted(_Bits):
    rank: int
    kept_macs: int


class _AttentionBits(TypedDict):
    bits: int
    probability_bits: int


_FULL_ATTENTION: _AttentionBits = {
    "bits": FULL_PRECISION_BITS,
    "probability_bits": FULL_PRECISION_BITS,
}
_UNQUANTIZED_ATTENTION: _AttentionBits = {
    "bits": HALF_PRECISION_BITS,
    "probability_bits": HALF_PRECISION_BITS,
}


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
class Costs:
    """Parameters and operations of one combination of bits and rank.

    Attributes:
        weight_bits, activation_bits, rank: the combination; 32, 32, 0 is full precision.
        paper_parameters: fp32 equivalents.
        paper_operations: of all steps, with factors counted at the low width.
        paper_flops: of one forward pass, in 16-bit equivalents.
        true_operations: of the linears in all steps, in the unit of ``paper_operations``, factors
            in 16 bits.
        attention_operations: of QKᵀ and PV, in the same unit.
        total_operations: of linears and attention.
        paper_reduction, true_reduction: full-precision operations of the linears over the paper's
            and over the true ones.
        total_reduction: the same of linears and attention.
    """

    weight_bits: int | float
    activation_bits: int | float
    rank: int
    paper_parameters: float
    paper_operations: float
    paper_flops: float
    true_operations: float
    attention_operations: float
    total_operations: float
    paper_reduction: float
    true_reduction: float
    total_reduction: float


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
    ``layers`` the quantized ones, ``kept`` those that the settings keep in 16 bits.
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
        for name in ("modulation_layers", "modulation_macs", "modulation_choices"):
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


@dataclass(frozen=True)
class _Counter:
    """Costs of one network and image.

    Attributes:
        size: of the network.
        work: of its quantized layers, one pass.
        attention: of its attention, one pass.
        steps: passes.
        kept_macs: of layers that stay in 16 bits, one pass.
    """

    size: NetworkSize
    work: NetworkWork
    attention: AttentionWork
    steps: int
    kept_macs: int = 0

    def at(self, target: Target, rank: int, attention_bits: _AttentionBits) -> Costs:
        """Costs with so many bits, and factors of one rank beside every layer."""
        bits: _Bits = {"weight_bits": target.weight_bits, "activation_bits": target.activation_bits}
        counted: _Counted = {**bits, "rank": rank, "kept_macs": self.kept_macs}
        steps = self.steps
        whole = NetworkWork(self.work.dense + self.kept_macs, self.work.per_rank)
        full = full_precision_operations(whole, steps=steps)
        full_attention = attention_operations(self.attention, steps=steps, **_FULL_ATTENTION)
        paper = paper_operations(self.work, **counted, steps=steps)
        true = true_operations(self.work, **counted, steps=steps)
        attention = attention_operations(self.attention, steps=steps, **attention_bits)
        return Costs(
            **bits,
            rank=rank,
            paper_parameters=paper_parameters(self.size, target.weight_bits, rank),
            paper_operations=paper,
            paper_flops=paper_flops(self.work, **counted),
            true_operations=true,
            attention_operations=attention,
            total_operations=true + attention,
            paper_reduction=full / paper,
            true_reduction=full / true,
            total_reduction=(full + full_attention) / (true + attention),
        )

    def paper_ladder(self) -> dict[str, Costs]:
        """Key such as ``W4A6 r_L=8`` -> costs; ``r_L=0`` stands for no factors at all."""
        ladder = {}
        for activation_bits in PAPER_ACTIVATION_BITS:
            target = Target(PAPER_WEIGHT_BITS, activation_bits)
            for local_rank in (0, *PAPER_LOCAL_RANKS):
                rank = PAPER_GLOBAL_RANK + local_rank if local_rank else 0
                key = ladder_key(activation_bits, local_rank)
                ladder[key] = self.at(target, rank, _UNQUANTIZED_ATTENTION)
        return ladder


def ladder_key(activation_bits: int, local_rank: int) -> str:
    """Key of ``Estimate.paper_ladder``."""
    return f"W{PAPER_WEIGHT_BITS}A{activation_bits} r_L={local_rank}"


def estimate(
    architecture: Architecture,
    settings: BuildSettings,
    image: ImageSettings | None = None,
    *,
    variances: Mapping[str, float] | None = None,
) -> Estimate:
    """Predict what a build would give, without building.

    Args:
        architecture: the network.
        settings: those of the build.
        image: what operations are counted for; by default the paper's.
        variances: layer name -> variance of every quantized layer, as the build would measure it
            (`planner.weights.layer.allocation_variance`). Without it all layers count as equal.

    Raises:
        UsageError: the target lies outside the settings' bounds, a pattern finds nothing or leaves
            nothing to quantize, or the image has no whole number of tokens.
        ValueError: a quantized layer has no variance.
    """
    image = image or ImageSettings()
    settings = replace(settings, variant=architecture.variant)
    tokens = architecture.count_tokens(image.resolution_px, image.text_tokens)
    active_tensors = find_active_tensors(architecture)
    linears = architecture.quantizable
    active = [name for name in linears if f"{name}.weight" in active_tensors]
    tabled = left_to_table(architecture, settings).layers.keys() & linears.keys()
    kept = settings.kept_layers(active, tabled)
    statistics = []
    for name in active:
        if name in kept or name in tabled:
            continue
        if variances is not None and name not in variances:
            raise ValueError(f"no variance for the quantized layer {name}")
        variance = 1.0 if variances is None else variances[name]
        out_features, in_features = linears[name]
        statistics.append(LayerStatistics(name, out_features * in_features, variance))
    bits = _bits(statistics, settings, _share(architecture, settings, image.steps))
    size, work = network_size(architecture), network_work(architecture, tokens)
    attention = architecture.family.attention_work(architecture.config, tokens)
    whole = _Counter(size, work, attention, image.steps)
    own_work = network_work(architecture, tokens, {*kept, *tabled})
    tabled_macs = work.dense - network_work(architecture, tokens, tabled).dense
    own = _Counter(
        _own_size(architecture, settings, kept, image.steps),
        own_work,
        attention,
        image.steps,
        kept_macs=work.dense - own_work.dense - tabled_macs,
    )
    rank = settings.global_rank + settings.local_rank
    return Estimate(
        settings=settings,
        image=image,
        tokens=tokens,
        size=size,
        work=work,
        attention=attention,
        full_precision=whole.at(Target(32, 32), 0, _FULL_ATTENTION),
        paper_ladder=whole.paper_ladder(),
        own=own.at(
            settings.target,
            rank,
            {"bits": HALF_PRECISION_BITS, "probability_bits": settings.softmax_bits},
        ),
        checkpoint=checkpoint_bytes(architecture),
        pack=pack_bytes(architecture, bits, active_tensors, settings, image.steps),
        distortion=predict_distortion(
            statistics, bits, settings.target.activation_bits, from_weights=variances is not None
        ),
        layers={
            layer.name: LayerEstimate(
                layer.parameters,
                bits[layer.name],
                decibels(gaussian_level(bits[layer.name]).mse),
            )
            for layer in sorted(statistics, key=lambda layer: layer.name)
        },
        kept=tuple(sorted(kept)),
        modulation_layers=len(tabled),
        modulation_macs=tabled_macs,
        modulation_choices=_choices(architecture, active_tensors, settings, kept, image.steps),
    )


def without_larger_table(
    settings: BuildSettings, architecture: Architecture, steps: int
) -> BuildSettings:
    """The settings that a build takes where nobody chose the table: none that outgrows the layers.

    Args:
        settings: of a recipe.
        architecture: the network.
        steps: of the table.
    """
    share = _share(architecture, settings, steps)
    if not share.weights or share.pays(settings.target.weight_bits):
        return settings
    return replace(settings, modulation="weights")


def _share(architecture: Architecture, settings: BuildSettings, steps: int) -> TableShare:
    """Of a table of both prompts at so many steps; more than the build's where they share one."""
    rows = PROMPTS * steps if settings.modulation == "table" else 0
    return table_share(architecture, settings, rows)


def _bits(
    statistics: Sequence[LayerStatistics], settings: BuildSettings, table: TableShare
) -> dict[str, int]:
    """Weight bits of every layer; without a probe, where a build would go by one."""
    if settings.weight_allocation == "uniform":
        return uniform_bits((layer.name for layer in statistics), settings)
    if settings.weight_allocation == "sensitivity":
        # Nothing tells layers apart; VaSMP with the same budget stands in.
        asked = settings.target.weight_bits
        mean = table.mean_of_rest(asked, sum(layer.parameters for layer in statistics))
        target = replace(settings.target, weight_bits=min(mean, settings.maximum_bits))
        settings = replace(settings, weight_allocation="vasmp", target=target)
    return weight_bits(statistics, settings)


def _own_size(
    architecture: Architecture, settings: BuildSettings, kept: Collection[str], steps: int
) -> NetworkSize:
    """Parameters with those of a table of modulations, in 16 bits, for those that it replaces."""
    tabled = left_to_table(architecture, settings)
    size = network_size(architecture, {*kept, *tabled.layers})
    absent = sum(prod(architecture.tensor_shapes[name]) for name in tabled.tensors)
    stored = table_bytes(architecture, steps) if settings.makes_table else 0
    in_fp32 = stored // (FULL_PRECISION_BITS // 8)
    return replace(size, parameters=size.parameters - absent + in_fp32)


def _choices(
    architecture: Architecture,
    active_tensors: Collection[str],
    settings: BuildSettings,
    kept: Collection[str],
    steps: int,
) -> dict[str, int]:
    """Bytes of a pack by what is stored of modulations; without a table that is no smaller."""
    found = {}
    for choice in get_args(Modulation) if architecture.modulations.layers else ():
        changed = replace(settings, modulation=choice)
        share = _share(architecture, changed, steps)
        if choice == "table" and not share.pays(settings.target.weight_bits):
            continue
        absent = {*kept, *left_to_table(architecture, changed).layers}
        quantized = [
            LayerStatistics(name, shape.out_features * shape.in_features, 1.0)
            for name, shape in architecture.quantizable.items()
            if f"{name}.weight" in active_tensors and name not in absent
        ]
        bits = _bits(quantized, changed, share)
        sizes = pack_bytes(architecture, bits, active_tensors, changed, steps)
        found[choice] = sizes.total
    return found
