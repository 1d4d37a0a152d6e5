"""What ``qplan estimate`` says before anything is built: sizes, operations, expected distortion.

``estimate`` computes, ``Estimate.to_json`` hands the numbers on, ``render`` lays them out in
tables. The paper's way of counting and the true figures stand beside each other, each under its
own heading; ``accounting`` explains the difference.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from artifacts.gaussian_quantizer import gaussian_level
from artifacts.layout import block_linears
from planner.accounting import (
    CheckpointBytes,
    NetworkSize,
    NetworkWork,
    PackBytes,
    TokenCounts,
    checkpoint_bytes,
    count_tokens,
    full_precision_operations,
    network_size,
    network_work,
    pack_bytes,
    paper_flops,
    paper_operations,
    paper_parameters,
    true_operations,
)
from planner.network_probe import find_active_tensors
from planner.target import UNQUANTIZED_BITS, Target
from planner.vasmp import MAXIMUM_BITS, MINIMUM_BITS, LayerStatistics, allocate
from schemas.errors import UsageError
from schemas.transformer_config import TransformerConfig, Variant

PAPER_LOCAL_RANKS = (4, 8, 16, 32)
"""The values of r_L that the paper's tables compare, all with r_G = 32."""
PAPER_GLOBAL_RANK = 32
PAPER_WEIGHT_BITS = 4
PAPER_ACTIVATION_BITS = (4, 6)


@dataclass(frozen=True)
class EstimateSettings:
    """Settings of a build and of the image that operations are counted for.

    Attributes:
        global_rank, local_rank: r_G and r_L of H-SVD; 0 goes without.
        minimum_bits, maximum_bits: bounds of every layer's weight bits.
        rotation_signs: whether the rotation flips signs.
        steps: forward passes of one image.
        resolution_px: side of a square image.
        text_tokens: length of the prompt.

    Raises:
        UsageError: a rank is negative, or there is no step.
    """

    global_rank: int = 32
    local_rank: int = 8
    minimum_bits: int = MINIMUM_BITS
    maximum_bits: int = MAXIMUM_BITS
    rotation_signs: bool = True
    steps: int = 40
    resolution_px: int = 512
    text_tokens: int = 333

    def __post_init__(self) -> None:
        if self.global_rank < 0 or self.local_rank < 0:
            raise UsageError(
                f"ranks {self.global_rank} and {self.local_rank} must not be negative",
                hint="a rank of 0 leaves the factors out",
            )
        if self.steps < 1:
            raise UsageError(f"{self.steps} steps", hint="give at least 1")

    @property
    def rank(self) -> int:
        """Rank that the paper's accounting charges: r_G + r_L."""
        return self.global_rank + self.local_rank


@dataclass(frozen=True)
class Costs:
    """Parameters and operations of one combination of bits and rank.

    Attributes:
        weight_bits, activation_bits, rank: the combination; 32, 32, 0 is full precision.
        paper_parameters: fp32 equivalents.
        paper_operations: of all steps, with factors counted at the low width.
        paper_flops: of one forward pass, in 16-bit equivalents.
        true_operations: of all steps, in the unit of ``paper_operations``, factors in 16 bits.
        paper_reduction, true_reduction: full-precision operations over these operations.
    """

    weight_bits: int | float
    activation_bits: int | float
    rank: int
    paper_parameters: float
    paper_operations: float
    paper_flops: float
    true_operations: float
    paper_reduction: float
    true_reduction: float


@dataclass(frozen=True)
class LayerEstimate:
    """One active layer: its size, its bits, and its expected signal-to-noise ratio.

    Attributes:
        snr_db: of the quantized residual against itself, -10 log10 kappa(bits).
    """

    parameters: int
    weight_bits: int
    snr_db: float


@dataclass(frozen=True)
class Distortion:
    """Expected signal-to-noise ratios by the Gaussian model, in dB.

    They leave out what the factor branches gain, since that depends on the weights: a build can
    only be better than this, if its weights and activations are Gaussian after the rotation.

    Attributes:
        weights_db: energy of all weights over the energy of their error; None when every weight
            is zero, which quantizes without error.
        activations_db: the same of a layer's input; None when activations stay unquantized.
        layer_output_db: of a layer's output with both errors, which are independent; None without
            any error.
        from_weights: whether variances of real weights went in. Without them all layers count as
            having the same variance, so a mixed allocation shows no gain.
    """

    weights_db: float | None
    activations_db: float | None
    layer_output_db: float | None
    from_weights: bool


@dataclass(frozen=True)
class Estimate:
    """Everything ``qplan estimate`` prints, as plain data. Bytes and operations are not rounded."""

    target: Target
    variant: Variant
    settings: EstimateSettings
    tokens: TokenCounts
    size: NetworkSize
    work: NetworkWork
    full_precision: Costs
    paper_ladder: dict[str, Costs]
    own: Costs
    checkpoint: CheckpointBytes
    pack: PackBytes
    distortion: Distortion
    layers: dict[str, LayerEstimate]

    def to_json(self) -> dict[str, Any]:
        """Give the estimate as JSON values, with totals that the dataclasses compute."""
        values = asdict(self)
        values["pack"]["total"] = self.pack.total
        values["size"]["other_parameters"] = self.size.other_parameters
        return values


def _costs(size: NetworkSize, work: NetworkWork, target: Target, rank: int, steps: int) -> Costs:
    weight_bits, activation_bits = target.weight_bits, target.activation_bits
    full = full_precision_operations(work, steps=steps)
    paper = paper_operations(
        work, weight_bits=weight_bits, activation_bits=activation_bits, rank=rank, steps=steps
    )
    true = true_operations(
        work, weight_bits=weight_bits, activation_bits=activation_bits, rank=rank, steps=steps
    )
    return Costs(
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        rank=rank,
        paper_parameters=paper_parameters(size, weight_bits, rank),
        paper_operations=paper,
        paper_flops=paper_flops(
            work, weight_bits=weight_bits, activation_bits=activation_bits, rank=rank
        ),
        true_operations=true,
        paper_reduction=full / paper,
        true_reduction=full / true,
    )


def _paper_ladder(size: NetworkSize, work: NetworkWork, steps: int) -> dict[str, Costs]:
    """Key such as ``W4A6 r_L=8`` -> costs; ``r_L=0`` stands for no factors at all."""
    ladder = {}
    for activation_bits in PAPER_ACTIVATION_BITS:
        target = Target(PAPER_WEIGHT_BITS, activation_bits)
        for local_rank in (0, *PAPER_LOCAL_RANKS):
            rank = PAPER_GLOBAL_RANK + local_rank if local_rank else 0
            ladder[ladder_key(activation_bits, local_rank)] = _costs(
                size, work, target, rank, steps
            )
    return ladder


def ladder_key(activation_bits: int, local_rank: int) -> str:
    """Key of ``Estimate.paper_ladder``."""
    return f"W{PAPER_WEIGHT_BITS}A{activation_bits} r_L={local_rank}"


def relative_error(mean_bits: int | float) -> float:
    """Mean of kappa(b) over timesteps whose bits b average ``mean_bits``.

    Between whole numbers some timesteps have the lower width and some the upper, so the error
    lies on the chord. Unquantized (16 bits) counts as no error.
    """
    if mean_bits == UNQUANTIZED_BITS:
        return 0.0
    lower = math.floor(mean_bits)
    share = mean_bits - lower
    error = (1 - share) * gaussian_level(lower).mse
    return error + share * gaussian_level(lower + 1).mse if share else error


def _decibels(relative_error: float) -> float:
    return -10 * math.log10(relative_error)


def _decibels_or_none(relative_error: float) -> float | None:
    return _decibels(relative_error) if relative_error else None


def _predict_distortion(
    statistics: list[LayerStatistics],
    bits: Mapping[str, int],
    activation_bits: int | float,
    *,
    from_weights: bool,
) -> Distortion:
    energy = math.fsum(layer.parameters * layer.variance for layer in statistics)
    error = math.fsum(
        layer.parameters * layer.variance * gaussian_level(bits[layer.name]).mse
        for layer in statistics
    )
    weights = error / energy if energy else 0.0
    activations = relative_error(activation_bits)
    return Distortion(
        weights_db=_decibels_or_none(weights),
        activations_db=_decibels_or_none(activations),
        layer_output_db=_decibels_or_none(weights + activations + weights * activations),
        from_weights=from_weights,
    )


def estimate(
    config: TransformerConfig,
    target: Target,
    settings: EstimateSettings | None = None,
    variant: Variant = "q",
    *,
    variances: Mapping[str, float] | None = None,
) -> Estimate:
    """Predict what a build would give, without building.

    Args:
        config: the network.
        target: the bits asked for.
        settings: ranks, bounds, image; the defaults are the paper's.
        variant: decides which layers are active.
        variances: layer name -> variance, as ``vasmp`` takes it, of every active layer. Without
            it all layers count as equal.

    Raises:
        UsageError: the target lies outside the settings' bounds, or the image has no whole number
            of tokens.
        ValueError: an active layer has no variance.
    """
    settings = settings or EstimateSettings()
    tokens = count_tokens(
        config, resolution_px=settings.resolution_px, text_tokens=settings.text_tokens
    )
    active_tensors = find_active_tensors(config, variant)
    statistics = []
    for name, shape in block_linears(config).items():
        if f"{name}.weight" not in active_tensors:
            continue
        if variances is not None and name not in variances:
            raise ValueError(f"no variance for the active layer {name}")
        variance = 1.0 if variances is None else variances[name]
        statistics.append(LayerStatistics(name, shape.out_features * shape.in_features, variance))
    bits = allocate(
        statistics,
        target.weight_bits,
        minimum_bits=settings.minimum_bits,
        maximum_bits=settings.maximum_bits,
    )
    size, work = network_size(config), network_work(config, tokens)
    return Estimate(
        target=target,
        variant=variant,
        settings=settings,
        tokens=tokens,
        size=size,
        work=work,
        full_precision=_costs(size, work, Target(32, 32), 0, settings.steps),
        paper_ladder=_paper_ladder(size, work, settings.steps),
        own=_costs(size, work, target, settings.rank, settings.steps),
        checkpoint=checkpoint_bytes(config),
        pack=pack_bytes(
            config,
            bits,
            active_tensors,
            global_rank=settings.global_rank,
            local_rank=settings.local_rank,
            rotation_signs=settings.rotation_signs,
        ),
        distortion=_predict_distortion(
            statistics, bits, target.activation_bits, from_weights=variances is not None
        ),
        layers={
            layer.name: LayerEstimate(
                layer.parameters,
                bits[layer.name],
                _decibels(gaussian_level(bits[layer.name]).mse),
            )
            for layer in sorted(statistics, key=lambda layer: layer.name)
        },
    )


def _millions(value: float) -> str:
    return f"{value / 1e6:,.2f}"


def _giga(value: float) -> str:
    return f"{value / 1e9:,.0f}"


def _giga_fine(value: float) -> str:
    return f"{value / 1e9:,.2f}"


def _decibel_text(value_db: float | None) -> str:
    return "without error" if value_db is None else f"{value_db:.2f} dB"


def _new_table(*columns: str) -> Table:
    """A table whose cells never break; the first column holds labels, the others numbers."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _section(heading: str, table: Table, *notes: str) -> Group:
    return Group(Text(heading, style="bold"), table, *(Text(note, style="dim") for note in notes))


def _row_label(local_rank: int) -> str:
    return f"r_L {local_rank}" if local_rank else "no factors"


def _ladder_section(result: Estimate) -> Group:
    table = _new_table(
        "",
        "Params M",
        "Ops G\nW4A4",
        "Ops G\nW4A6",
        "FLOPs G\nW4A4",
        "FLOPs G\nW4A6",
    )
    full = result.full_precision
    operations = _giga(full.paper_operations)
    table.add_row(
        "full precision", _millions(full.paper_parameters), operations, operations, "", ""
    )
    for local_rank in (0, *PAPER_LOCAL_RANKS):
        a4, a6 = (
            result.paper_ladder[ladder_key(bits, local_rank)] for bits in PAPER_ACTIVATION_BITS
        )
        table.add_row(
            _row_label(local_rank),
            _millions(a4.paper_parameters),
            _giga(a4.paper_operations),
            _giga(a6.paper_operations),
            _giga_fine(a4.paper_flops),
            _giga_fine(a6.paper_flops),
        )
    return _section(
        f"Paper convention: W4, r_G {PAPER_GLOBAL_RANK}, factors counted at the low width",
        table,
        "Params: fp32 equivalents. Ops: all steps, scaled by bits x bits / (32 x 32).",
        "FLOPs: one pass, scaled by bits x bits / (16 x 16).",
    )


def _true_section(result: Estimate) -> Group:
    table = _new_table(
        "",
        "Ops G\nW4A4",
        "fewer by\ntrue",
        "fewer by\npaper",
        "Ops G\nW4A6",
        "fewer by\ntrue",
        "fewer by\npaper",
    )
    for local_rank in (0, *PAPER_LOCAL_RANKS):
        row = [_row_label(local_rank)]
        for bits in PAPER_ACTIVATION_BITS:
            costs = result.paper_ladder[ladder_key(bits, local_rank)]
            row += [
                _giga(costs.true_operations),
                f"{costs.true_reduction:.0f}x",
                f"{costs.paper_reduction:.0f}x",
            ]
        table.add_row(*row)
    return _section(
        "True bit operations of the same settings: factors counted at 16 x 16 bits",
        table,
        "Fewer than at full precision, 32 x 32 bits, of which bf16 needs a quarter.",
    )


def _target_section(result: Estimate) -> Group:
    own, settings = result.own, result.settings
    table = _new_table("", "paper convention", "true")
    paper_ratio = result.size.parameters / own.paper_parameters
    true_ratio = result.checkpoint.parameters / result.pack.total
    table.add_row(
        "size", f"{_millions(own.paper_parameters)} M params", f"{_millions(result.pack.total)} MB"
    )
    table.add_row("smaller by", f"{paper_ratio:.2f}x", f"{true_ratio:.2f}x")
    table.add_row(
        "operations", f"{_giga(own.paper_operations)} G", f"{_giga(own.true_operations)} G"
    )
    table.add_row("fewer by", f"{own.paper_reduction:.0f}x", f"{own.true_reduction:.0f}x")
    table.add_row("FLOPs of one pass", f"{_giga_fine(own.paper_flops)} G", "")
    return _section(
        f"Your target: {result.target}, r_G {settings.global_rank}, r_L {settings.local_rank},"
        f" variant {result.variant}",
        table,
        f"{settings.steps} steps at {settings.resolution_px} px, {settings.text_tokens} text"
        " tokens, one pass per step.",
        "Smaller than full precision by parameters (paper), than bf16 by bytes (true).",
    )


def _bytes_section(result: Estimate) -> Group:
    pack, checkpoint = result.pack, result.checkpoint
    table = _new_table("", "MB")
    table.add_row("bf16 checkpoint", _millions(checkpoint.parameters))
    table.add_row(
        "bf16 checkpoint with position table",
        _millions(checkpoint.parameters + checkpoint.position_table),
        end_section=True,
    )
    table.add_row("pack: codes", _millions(pack.codes))
    table.add_row("pack: scales and signs", _millions(pack.scales + pack.rotation_signs))
    table.add_row("pack: global factors", _millions(pack.global_factors))
    table.add_row("pack: local factors, at most", _millions(pack.local_factors))
    table.add_row("pack: unquantized tensors", _millions(pack.unquantized), end_section=True)
    table.add_row("pack in total, at most", _millions(pack.total))
    return _section(
        "True bytes on disk (tensor data)",
        table,
        "Local factors: the whole budget of Eq. 7; the blocks chosen may take less.",
        "Left out: inactive tensors, and the position table, which can be rebuilt.",
    )


def _bits_section(result: Estimate) -> Group:
    distortion = result.distortion
    table = _new_table("weight bits", "layers", "weights M", "SNR dB")
    for bits in sorted({layer.weight_bits for layer in result.layers.values()}):
        same = [layer for layer in result.layers.values() if layer.weight_bits == bits]
        table.add_row(
            str(bits),
            str(len(same)),
            _millions(sum(layer.parameters for layer in same)),
            f"{same[0].snr_db:.2f}",
        )
    source = (
        "Bits follow the variances of the weights."
        if distortion.from_weights
        else "No weights read: all layers count as having the same variance."
    )
    return _section(
        f"Predicted bits and distortion: {len(result.layers)} of {result.size.linears} block"
        " linears are active",
        table,
        f"Weights {_decibel_text(distortion.weights_db)}, activations"
        f" {_decibel_text(distortion.activations_db)}, a layer's output"
        f" {_decibel_text(distortion.layer_output_db)}.",
        "Gaussian model, without what the factors gain.",
        source,
    )


def render(result: Estimate) -> Group:
    """Lay ``result`` out as tables within 80 columns, rich's width in a pipe: nothing breaks."""
    return Group(
        f"{_millions(result.size.parameters)} M parameters, of which {result.size.linears} block"
        f" linears hold {_millions(result.size.linear_parameters)} M\n",
        _ladder_section(result),
        "",
        _true_section(result),
        "",
        _target_section(result),
        "",
        _bytes_section(result),
        "",
        _bits_section(result),
    )
