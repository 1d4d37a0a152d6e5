"""What ``qplan estimate`` says before anything is built: sizes, operations, expected distortion.

``estimate`` computes, ``Estimate.to_json`` hands the numbers on, and `planner.estimate.tables` lays
them out.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from artifacts.codec.gaussian_quantizer import gaussian_level
from artifacts.dit4sr.family import FAMILY
from artifacts.dit4sr.layout import block_linears
from artifacts.family import Architecture
from planner.allocate.vasmp import MAXIMUM_BITS, MINIMUM_BITS, LayerStatistics, allocate
from planner.build.network_probe import find_active_tensors
from planner.estimate.accounting import (
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
from planner.target import Target
from schemas.bit_grid import UNQUANTIZED
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
    if mean_bits == UNQUANTIZED:
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
    active_tensors = find_active_tensors(Architecture(FAMILY, config, variant))
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
