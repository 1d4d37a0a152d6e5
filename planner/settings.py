"""Everything about a build that a user may choose, checked in one place."""

import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from planner.allocate.vasmp import MAXIMUM_BITS, MINIMUM_BITS
from planner.allocate.vatmp import SEGMENTS, USED_BELOW_BITS
from planner.target import Target, parse_target
from planner.weights.effort import EffortName
from schemas.bit_widths import UNQUANTIZED
from schemas.errors import PackError, UsageError
from schemas.manifest import RecipeRecord, ScaleRule, SettingOrList, WeightScaleRule
from schemas.patterns import compile_pattern

if TYPE_CHECKING:  # it brings torch, and settings are read before anything heavy is
    from artifacts.checkpoint.reader import Checkpoint
    from artifacts.family import Family

Allocator = Literal["greedy", "exact"]
WeightAllocation = Literal["vasmp", "uniform", "sensitivity"]
WeightStatistic = Literal["rotated", "residual"]
Modulation = Literal["weights", "table", "both"]
BitBudget = Literal["bytes", "bit-operations"]
WeightRounding = Literal["nearest", "gptq"]
FactorFit = Literal["weight", "outputs"]
Smoothing = Literal["none", "search", "balance"]
TimestepAllocation = Literal["auto", "vatmp", "uniform", "sensitivity"]


SOFTMAX_BITS = (8, UNQUANTIZED)
FACTOR_BITS = (8, UNQUANTIZED)
LATER_SETTINGS: dict[str, SettingOrList] = {
    "softmax_bits": UNQUANTIZED,
    "factor_bits": UNQUANTIZED,
    "budget": "bytes",
    "modulation": "weights",
    "effort": "normal",
    "weight_rounding": "nearest",
    "factor_fit": "weight",
}
"""Settings that older packs do not record, as they are there; recorded only where they differ."""
RECORDED_SMOOTHING: dict[Smoothing, SettingOrList] = {"none": False, "search": True}
"""As manifests have recorded it since before there was a third choice, which goes by its name."""
LEARNED_PREFIX = "learned_"
"""Of what a manifest records of a pack whose layers learned (`planner.learned`): they are not what
the settings alone would make."""
EDITED_GRID = "edited_grid"
"""Among the settings that a manifest records: bits were not all decided by the recipe."""


def check_bounds(minimum_bits: int, maximum_bits: int) -> None:
    """Make sure that weight bits can lie within the bounds.

    Raises:
        UsageError: they are not within 1 ... 8, or in the wrong order.
    """
    if not 1 <= minimum_bits <= maximum_bits <= 8:
        raise UsageError(
            f"weight bits from {minimum_bits} to {maximum_bits}",
            hint="1 <= minimum <= maximum <= 8",
        )


@dataclass(frozen=True)
class BuildSettings:
    """How to quantize. The defaults are the paper's, and the rotation's signs ours.

    Attributes:
        target: mean bits to reach.
        recipe: name under which this combination of settings is known (`planner.recipes`).
        variant: which published network the weights are; they do not tell. None until `resolved`.
        global_rank, local_rank: r_G and r_L of H-SVD; 0 goes without.
        factor_bits: of the factors' numbers: 16 for bfloat16, 8 for integers with a scale for each
            pair of vectors (ours).
        minimum_bits, maximum_bits: bounds of every layer's weight bits.
        weight_allocation: ``vasmp``; ``uniform``: every layer gets the target's bits; or
            ``sensitivity``: by what a layer's error does to the final latent (ours).
        weight_statistic: whose variance VaSMP reads: that of the ``rotated`` weight, as the paper
            does, or of the ``residual`` after the factors, which is what gets quantized (ours).
        allocator: how VaSMP's integer problem is solved.
        timestep_allocation: ``vatmp`` where there is a calibration; ``uniform``; ``auto``: VaTMP
            below 6 activation bits; or ``sensitivity``: one budget for all layers and steps, by
            what their errors do to the final latent (ours).
        budget: what the target's mean bits are means over, for bits by sensitivity. By ``bytes``
            weights count by their number, and activations by layer and step. By
            ``bit-operations`` both means, weighted by multiply-accumulates, keep to the target
            too: what matters where 4-bit products are faster than wider ones.
        segments: of VaTMP, the most runs of equal bits over a layer's timesteps.
        rotation: whether weights and activations are rotated at all.
        rotation_signs: whether the rotation flips random signs first.
        smoothing: whether input channels are divided by a vector that evens out activations and
            weights: ``none``; ``search``: a power of largest magnitudes, searched layer by layer,
            instead of a rotation (SmoothQuant, SVDQuant; needs a calibration); or ``balance``: by
            second moments of the inputs, before the rotation (ours).
        weight_scale, activation_scale: how the step of an output channel and of a token is found.
        weight_rounding: to the ``nearest`` level, or by ``gptq``: later columns make up for errors
            of earlier ones, by second moments of the layers' inputs.
        factor_fit: what global factors come near to: the ``weight``, before it is rounded, as the
            paper has it; or ``outputs``: to what rounding left, where inputs are, by the same
            moments (ours).
        softmax_bits: of attention probabilities: 8, as the paper has them, or 16, unquantized.
        modulation: what a pack holds of layers that read timestep and pooled prompt alone: their
            ``weights``, quantized like any; the ``table`` of what they give at the pack's own
            steps and prompts; or ``both``.
        effort: how hard to look for factors and rounding (`planner.weights.effort`).
        keep: regular expressions; a layer whose name one of them finds stays in 16 bits.
        seed: of signs and randomized decompositions; 0 to 2^63 - 1.

    Raises:
        UsageError: a value is out of range, or a pattern is no regular expression.
    """

    target: Target
    recipe: str = "q-dit4sr"
    variant: str | None = None
    global_rank: int = 32
    local_rank: int = 8
    factor_bits: int = UNQUANTIZED
    minimum_bits: int = MINIMUM_BITS
    maximum_bits: int = MAXIMUM_BITS
    weight_allocation: WeightAllocation = "vasmp"
    weight_statistic: WeightStatistic = "rotated"
    allocator: Allocator = "greedy"
    timestep_allocation: TimestepAllocation = "auto"
    budget: BitBudget = "bytes"
    segments: int = SEGMENTS
    rotation: bool = True
    rotation_signs: bool = True
    smoothing: Smoothing = "none"
    weight_scale: WeightScaleRule = "gaussian"
    activation_scale: ScaleRule = "gaussian"
    weight_rounding: WeightRounding = "nearest"
    factor_fit: FactorFit = "weight"
    softmax_bits: int = UNQUANTIZED
    modulation: Modulation = "weights"
    effort: EffortName = "normal"
    keep: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.global_rank < 0 or self.local_rank < 0:
            raise UsageError(
                f"ranks {self.global_rank} and {self.local_rank} must not be negative",
                hint="a rank of 0 leaves the factors out",
            )
        check_bounds(self.minimum_bits, self.maximum_bits)
        for what, choice, choices in (
            ("allocator", self.allocator, Allocator),
            ("weight allocation", self.weight_allocation, WeightAllocation),
            ("weight statistic", self.weight_statistic, WeightStatistic),
            ("budget", self.budget, BitBudget),
            ("timestep allocation", self.timestep_allocation, TimestepAllocation),
            ("choice of modulation", self.modulation, Modulation),
            ("effort", self.effort, EffortName),
            ("rounding of weights", self.weight_rounding, WeightRounding),
            ("fit of factors", self.factor_fit, FactorFit),
            ("smoothing", self.smoothing, Smoothing),
            ("scale rule of weights", self.weight_scale, WeightScaleRule),
            ("scale rule of activations", self.activation_scale, ScaleRule),
        ):
            if choice not in get_args(choices):
                raise UsageError(
                    f"there is no {what} {choice!r}", hint="one of: " + ", ".join(get_args(choices))
                )
        if self.factor_bits not in FACTOR_BITS:
            raise UsageError(f"factors of {self.factor_bits} bits", hint="8, or 16 for bfloat16")
        if self.softmax_bits not in SOFTMAX_BITS:
            raise UsageError(
                f"softmax at {self.softmax_bits} bits",
                hint="8, or 16 for unquantized probabilities",
            )
        bits = self.target.weight_bits
        if self.weight_allocation == "uniform" and bits != int(bits):
            raise UsageError(
                f"{bits} weight bits cannot be the same in every layer",
                hint=f"give a whole number, W{int(bits)} or W{int(bits) + 1}, or use VaSMP",
            )
        if self.budget != "bytes" and not self.uses_sensitivity:
            raise UsageError(
                f"a budget of {self.budget} needs bits by sensitivity", hint="--recipe standard"
            )
        if self.searches_smoothing and self.rotation:
            raise UsageError(
                "smoothing by search and rotation exclude one another",
                hint="--no-rotation, or --smoothing balance",
            )
        if self.segments < 1:
            raise UsageError(f"{self.segments} segments", hint="give at least 1")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed {self.seed}", hint="give a whole number from 0 to 2^63 - 1")
        for pattern in self.keep:
            compile_pattern(pattern)

    def resolved(self, checkpoint: "Checkpoint") -> "BuildSettings":
        """The same for ``checkpoint``: the variant that it is taken as, where none was chosen.

        Raises:
            UsageError: its family has no such variant.
        """
        return replace(self, variant=checkpoint.architecture(self.variant).variant)

    @property
    def wants_vatmp(self) -> bool:
        """Whether a calibration, where there is one, decides the activation bits."""
        bits = self.target.activation_bits
        if bits == UNQUANTIZED:
            return False
        if self.timestep_allocation == "auto":
            return bits < USED_BELOW_BITS
        return self.timestep_allocation == "vatmp"

    @property
    def goes_by_sensitivity_over_steps(self) -> bool:
        """Whether sensitivities decide the activation bits."""
        unquantized = self.target.activation_bits == UNQUANTIZED
        return self.timestep_allocation == "sensitivity" and not unquantized

    @property
    def reads_variances(self) -> bool:
        """Whether bits are decided by variances, among other things."""
        return self.weight_allocation != "uniform" or self.timestep_allocation == "sensitivity"

    @property
    def uses_sensitivity(self) -> bool:
        """Whether bits are decided by sensitivities."""
        return "sensitivity" in (self.weight_allocation, self.timestep_allocation)

    @property
    def uses_calibration(self) -> bool:
        """Whether a calibration would change anything."""
        return self.wants_vatmp or self.searches_smoothing

    @property
    def searches_smoothing(self) -> bool:
        """Whether a calibration's channel statistics decide the smoothing."""
        return self.smoothing == "search"

    @property
    def balances(self) -> bool:
        """Whether second moments of what layers are fed decide the smoothing."""
        return self.smoothing == "balance"

    @property
    def pays_for_vectors(self) -> bool:
        """Whether smoothing vectors take their bits from the budget of weight bits."""
        return self.balances and self.weight_allocation == "sensitivity"

    @property
    def rounds_by_moments(self) -> bool:
        """Whether weights are rounded by the second moments of what layers are fed."""
        return self.weight_rounding == "gptq"

    @property
    def fits_factors_to_outputs(self) -> bool:
        """Whether global factors are fitted, by the same moments, to what rounding left."""
        return self.factor_fit == "outputs" and self.global_rank > 0

    @property
    def goes_by_outputs(self) -> bool:
        """Whether a layer is quantized by what the error of its output would be."""
        return self.rounds_by_moments or self.fits_factors_to_outputs

    @property
    def uses_moments(self) -> bool:
        """Whether anything goes by the second moments of what layers are fed."""
        return self.goes_by_outputs or self.balances

    @property
    def makes_table(self) -> bool:
        """Whether the pack has a table of modulations."""
        return self.modulation != "weights"

    def kept_layers(self, names: Sequence[str], tabled: Collection[str] = ()) -> frozenset[str]:
        """Layers among ``names`` that stay in 16 bits.

        Args:
            names: of the layers that a forward pass reads.
            tabled: those whose results are stored instead; a pattern may find them, which changes
                nothing.

        Raises:
            UsageError: a pattern finds no layer, or they leave no layer to quantize.
        """
        kept: set[str] = set()
        for pattern in self.keep:
            found = [name for name in names if re.search(pattern, name)]
            if not found:
                raise UsageError(
                    f"pattern {pattern!r} finds none of the {len(names)} layers",
                    hint=f"a layer's name looks like {names[0]}",
                )
            kept.update(found)
        kept.difference_update(tabled)
        if kept.issuperset(set(names) - set(tabled)):
            raise UsageError(
                "the patterns keep every layer in 16 bits: nothing is left to quantize"
            )
        return frozenset(kept)

    def recorded(self) -> dict[str, SettingOrList]:
        """The settings as the manifest records them.

        Those that came later are there only where they change something: packs without them keep
        their bytes, and those from before there were such settings their meaning.
        """
        values = asdict(self)
        for name, default in LATER_SETTINGS.items():
            if values[name] == default:
                del values[name]
        del values["recipe"]  # the manifest has a place of its own for it
        values["smoothing"] = RECORDED_SMOOTHING.get(self.smoothing, self.smoothing)
        values["keep"] = list(self.keep)
        values["target"] = str(self.target)
        return values


def settings_of(record: RecipeRecord, family: "Family") -> BuildSettings:
    """The settings that a manifest records, as they were.

    Args:
        record: of a pack.
        family: of its network.

    Raises:
        PackError: they are not all known to this program, or are no settings.
    """
    values: dict[str, Any] = dict(record.settings)
    known = {field.name for field in fields(BuildSettings)} - {"recipe"}
    values.pop(EDITED_GRID, None)
    values = {k: v for k, v in values.items() if not k.startswith(LEARNED_PREFIX)}
    values = {**LATER_SETTINGS, **values}
    for name, recorded in RECORDED_SMOOTHING.items():
        if values.get("smoothing") is recorded:
            values["smoothing"] = name
    if set(values) != known:
        differing = sorted(set(values) ^ known)[:3]
        raise PackError(
            f"manifest.json: recipe.settings: {', '.join(differing)} is unknown or missing",
            hint="the pack was built by another version of this program",
        )
    try:
        values["target"] = parse_target(
            str(values["target"]),
            minimum_weight_bits=_whole(values["minimum_bits"]),
            maximum_weight_bits=_whole(values["maximum_bits"]),
        )
        values["recipe"] = record.name
        settings = TypeAdapter(BuildSettings).validate_python(values)
    except ValidationError as cause:
        first = cause.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise PackError(f"manifest.json: recipe.settings.{where}: {first['msg']}") from None
    except UsageError as cause:
        raise PackError(f"manifest.json: recipe.settings: {cause}") from cause
    return replace(settings, variant=family.check_variant(settings.variant or family.variants[0]))


def _whole(value: object) -> int:
    """A bound of weight bits; anything else is found out with the other settings."""
    return value if type(value) is int else MINIMUM_BITS
