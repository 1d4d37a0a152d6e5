"""The content of ``manifest.json``: what a pack holds, how it was made, what every file must be."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    FailFast,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from schemas.bit_grid import MAX_LAYERS, MAX_TIMESTEPS, Bits, MeanBitWidths, Timesteps
from schemas.bit_widths import UNQUANTIZED
from schemas.bounds import at_most, plain_or_list
from schemas.json_io import dump_json
from schemas.strict import StrictModel

FORMAT_VERSION = 2
"""The newest version of the pack format: what this code reads up to. A pack has the oldest version
that says all of it (`oldest_version`)."""

MAX_FILES = 10_000
"""Bound on everything else that there are several of: files, settings, rotated sizes."""

MAX_GUIDANCE = 1000.0
"""Largest guidance scale: people use 1 to 15, and float16 ends at 65,504."""
MAX_SHIFT = 100.0
"""Largest timestep shift, and the inverse of the smallest: published models have 1 to 12. Within
it, 10,000 timesteps are 10,000 different numbers in float32."""
MAX_MIN_SIDE_PX = 2048
"""Largest shorter side that a small image is brought to before the network sees it: memory and time
grow with its square, whatever the image. Published models have 512."""

MAX_SIDE_PX = 65536

Count = Annotated[int, Field(ge=0, lt=2**63)]
Version = Annotated[int, Field(ge=1, le=FORMAT_VERSION)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# Parts of letters, digits, dot, dash, underscore; no empty part, none that starts with a dot.
RelativePath = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$", max_length=255),
]
SourceName = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f][^\\\x00-\x1f]*$", max_length=1024)]
SizeKey = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,7}$")]
FamilyName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=64)]
VariantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
Share = Annotated[float, Field(ge=0, le=1.0001)]
Names = Annotated[tuple[str, ...], FailFast(), at_most(MAX_LAYERS), Field(strict=False)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE_PX)]
Features = Annotated[int, Field(ge=1, le=2**24)]
Construction = Literal["sylvester", "paley12", "paley20", "block", "none"]
ScaleRule = Literal["gaussian", "absmax", "blend"]
WeightScaleRule = Literal["gaussian", "absmax", "mse"]
TokenStep = Annotated[float, Field(ge=1e-3, le=1e3)]
FactorBits = Annotated[int, Field(ge=8, le=16, multiple_of=8)]
SoftmaxBits = Annotated[int, Field(ge=8, le=16, multiple_of=8)]  # a Literal would take 8.0
ColorFix = Literal["adain", "wavelet", "none"]
Steps = Annotated[int, Field(ge=1, le=MAX_TIMESTEPS)]
Guidance = Annotated[float, Field(ge=0, le=MAX_GUIDANCE)]
Shift = Annotated[float, Field(ge=1 / MAX_SHIFT, le=MAX_SHIFT)]
StartSigma = Annotated[float, Field(ge=0.01, le=1)]
Setting = str | int | float | bool | None
SettingOrList = Annotated[Setting | list[Setting], plain_or_list(MAX_FILES)]


class Producer(StrictModel):
    """The program that wrote the pack."""

    name: str
    version: str


class SourceFile(StrictModel):
    """One file of the checkpoint that the pack was made from.

    The name is only ever shown; it is relative, so that a pack says nothing about a machine.
    """

    name: SourceName
    sha256: Sha256
    bytes: Count


class Source(StrictModel):
    """The checkpoint that the pack was made from."""

    files: Annotated[tuple[SourceFile, ...], FailFast(), at_most(MAX_FILES), Field(strict=False)]


class ModelRecord(StrictModel):
    """The network, as far as its weights do not say it.

    What ``variant`` and ``config`` may hold is the family's to say (`artifacts.family`); a reader
    checks them against it.
    """

    family: FamilyName
    variant: VariantName
    config: Annotated[dict[str, SettingOrList], at_most(MAX_FILES)]


class RotationSize(StrictModel):
    """How inputs of one size are rotated; see `artifacts.codec.hadamard` for the constructions.

    Attributes:
        construction: which orthonormal matrix stands in each block.
        block_size: order of one diagonal block; the whole size unless ``block`` or ``none``.
    """

    construction: Construction
    block_size: Features


class RotationRecord(StrictModel):
    """The rotations of the pack.

    Attributes:
        enabled: whether the recipe rotates at all.
        signs: whether every rotated size has a ``rotation.signs.N`` tensor.
        seed: what the signs were drawn from.
        sizes: ``in_features`` as text -> rotation; exactly the sizes that some layer refers to.
    """

    enabled: bool
    signs: bool
    seed: Count
    sizes: Annotated[dict[SizeKey, RotationSize], at_most(MAX_FILES)]

    @model_validator(mode="after")
    def _disabled_means_none(self) -> Self:
        if not self.enabled and (self.sizes or self.signs):
            raise ValueError("rotation is not enabled, but sizes or signs are recorded")
        return self


class QuantizerRecord(StrictModel):
    """The scalar quantizer: ``2^b`` uniform levels, symmetric, zero not among them (midrise).

    Attributes:
        levels: which levels.
        weight_scale, activation_scale: how the step of an output channel and of a token is found.
        softmax_bits: of attention probabilities, unsigned with zero among the levels; 16 leaves
            them unquantized. Not written where it is 16, as in packs older than the field.
    """

    levels: Literal["midrise"] = "midrise"
    weight_scale: WeightScaleRule
    activation_scale: ScaleRule
    softmax_bits: SoftmaxBits = UNQUANTIZED

    @model_serializer(mode="wrap")
    def _leave_out_the_default(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        if self.softmax_bits == UNQUANTIZED:
            del values["softmax_bits"]
        return values


def without_default_start(start_sigma: float, values: dict[str, Any]) -> dict[str, Any]:
    """``values`` without ``start_sigma`` where sampling begins with noise alone."""
    if start_sigma == 1:
        del values["start_sigma"]
    return values


class SamplingDefaults(StrictModel):
    """How an upscale runs unless told otherwise.

    Attributes:
        steps: sampling steps.
        guidance: classifier-free guidance scale.
        shift: timestep shift of the flow-matching scheduler.
        start_sigma: share of noise that sampling begins with; what is left of 1 is the control
            latent. Not written where it is 1.
        tile_latent: side of a square tile, in latent pixels.
        overlap_latent: overlap of neighbouring tiles, in latent pixels.
        upscale: enlargement, per side.
        min_side_px: the shorter side of the enlarged image is raised to this, in pixels.
        color_fix: colour correction against the enlarged input.
    """

    steps: Steps
    guidance: Guidance
    shift: Shift
    start_sigma: StartSigma = 1.0
    tile_latent: Side
    overlap_latent: Annotated[int, Field(ge=0, le=65536)]
    upscale: Annotated[int, Field(ge=4, le=4)] = 4
    min_side_px: Annotated[int, Field(ge=1, le=MAX_MIN_SIDE_PX)]
    color_fix: ColorFix = "adain"

    @model_serializer(mode="wrap")
    def _leave_out_the_default(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_default_start(self.start_sigma, dump(self))

    @model_validator(mode="after")
    def _overlap_leaves_progress(self) -> Self:
        if self.overlap_latent >= self.tile_latent:
            raise ValueError(
                f"overlap_latent {self.overlap_latent} is not smaller than tile_latent"
                f" {self.tile_latent}"
            )
        return self


class RecipeRecord(StrictModel):
    """The named method and every setting it ran with."""

    name: str
    settings: Annotated[dict[str, SettingOrList], at_most(MAX_FILES)]


class CalibrationRecord(StrictModel):
    """How calibration images were sampled.

    Attributes:
        images: how many.
        crop_px: side of the square crops, in px of the low-resolution image; a smaller image was
            taken whole.
        seed: of the choice of images, crops and noise.
        steps, guidance, shift, start_sigma: of the sampling trajectory.
    """

    images: Annotated[int, Field(ge=1, le=MAX_FILES)]
    crop_px: Side
    seed: Count
    steps: Steps
    guidance: Guidance
    shift: Shift
    start_sigma: StartSigma = 1.0

    @model_serializer(mode="wrap")
    def _leave_out_the_default(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_default_start(self.start_sigma, dump(self))


class TransformerBytes(StrictModel):
    """Size of the transformer's tensor files, in bytes: in the source, and in the pack."""

    source: Count
    pack: Count = 0


class ErrorShare(StrictModel):
    """What a layer adds to the predicted squared error of the final latent, over that of all.

    Attributes:
        weights: by its weight's quantization.
        activations: by its activations', at all timesteps together.
    """

    weights: Share
    activations: Share


class LayerRecord(StrictModel):
    """One linear layer of the transformer blocks.

    Attributes:
        weight_bits: bits of the residual's codes; 16 keeps the plain weight.
        in_features, out_features: the weight is [out_features, in_features].
        rotation: a key of ``rotation.sizes``, or ``none``.
        global_rank: rank of SVD-G; 0 for none.
        local_block: [s_o, s_i], the block shape of SVD-L, or null for none.
        factor_bits: of the factors' numbers: 16 for bfloat16; 8 for integers, each pair of vectors
            with a scale. Not written where it is 16, as in packs older than the field.
        smoothing: whether inputs are divided by a stored vector, channel by channel, first.
        token_step: factor on the step that ``activation_scale`` gives a token. Not written where it
            is 1, as in packs older than the field.
        error_db: signal-to-noise ratio of the decoded weight, in dB; null when unknown.
        global_energy, local_energy: share of the rotated weight's energy in either factor branch.
        error_share: what it adds to the error that was predicted when bits were decided by
            sensitivities; null, and not written, where nothing was predicted for these bits.
        note: anything a reader should know about this layer.
    """

    weight_bits: Bits
    in_features: Features
    out_features: Features
    rotation: Literal["none"] | SizeKey = "none"
    global_rank: Annotated[int, Field(ge=0)] = 0
    local_block: Annotated[tuple[Features, Features], Field(strict=False)] | None = None
    factor_bits: FactorBits = UNQUANTIZED
    smoothing: bool = False
    token_step: TokenStep = 1.0
    error_db: float | None = None
    global_energy: Share | None = None
    local_energy: Share | None = None
    error_share: ErrorShare | None = None
    note: str = ""

    @model_serializer(mode="wrap")
    def _leave_out_the_default(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        if self.factor_bits == UNQUANTIZED:
            del values["factor_bits"]
        if self.error_share is None:
            del values["error_share"]
        if self.token_step == 1:
            del values["token_step"]
        return values

    @property
    def is_quantized(self) -> bool:
        """Whether the weight is stored as codes; a layer kept in 16 bits is an ordinary one."""
        return self.weight_bits != UNQUANTIZED

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if self.global_rank > min(self.out_features, self.in_features):
            raise ValueError(
                f"global_rank {self.global_rank} exceeds a {self.out_features} x"
                f" {self.in_features} weight"
            )
        if self.local_block is not None:
            rows, columns = self.local_block
            if self.out_features % rows or self.in_features % columns:
                raise ValueError(
                    f"local_block {rows} x {columns} does not divide a {self.out_features} x"
                    f" {self.in_features} weight"
                )
        if self.rotation not in ("none", str(self.in_features)):
            raise ValueError(
                f"rotation is that of size {self.rotation}, but in_features is {self.in_features}"
            )
        parts = self.global_rank or self.local_block is not None or self.smoothing
        parts = parts or self.token_step != 1
        if not self.is_quantized and (parts or self.rotation != "none"):
            raise ValueError(
                "a layer kept in 16 bits has neither factors nor a rotation nor a smoothing nor a"
                " step of tokens"
            )
        return self


class ModulationRecord(StrictModel):
    """A table of what the network's modulation layers give, one row per prompt and timestep.

    Attributes:
        timesteps: of the rows, strictly descending.
        prompts: SHA-256 of every pooled prompt that has rows, over its bytes in the file of
            prompts; the positive one first, the negative one where it is another.
        weights: whether the pack holds the layers themselves as well.
    """

    timesteps: Timesteps
    prompts: Annotated[
        tuple[Sha256, ...], FailFast(), at_most(2), Field(strict=False, min_length=1)
    ]
    weights: bool


class FileRecord(StrictModel):
    """What one file of the pack must be."""

    bytes: Count
    sha256: Sha256


def oldest_version(
    quantizer: QuantizerRecord,
    layers: Mapping[str, LayerRecord],
    modulation: ModulationRecord | None,
    sampling: SamplingDefaults,
) -> int:
    """The oldest version of the format that has all of this: 1, or 2.

    Version 2 brought tables of modulations, 8-bit factors, the scale rules ``blend`` and ``mse``,
    shares of the predicted error, layers' own steps of tokens, and samplers that begin with less
    than noise alone.
    """
    is_new = (
        modulation is not None
        or sampling.start_sigma != 1
        or quantizer.activation_scale == "blend"
        or quantizer.weight_scale == "mse"
        or any(
            layer.factor_bits != UNQUANTIZED
            or layer.error_share is not None
            or layer.token_step != 1
            for layer in layers.values()
        )
    )
    return 2 if is_new else 1


class Manifest(StrictModel):
    """The content of ``manifest.json``.

    Whoever builds a pack leaves ``files`` and ``checksum`` empty and ``transformer_bytes.pack`` at
    0; the writer fills them in, because only it knows what ended up on disk.

    Attributes:
        format, format_version: name and version of the format.
        min_reader_version: oldest reader that understands this pack.
        calibration: what the activation bits, or the smoothing, were decided from; null for
            nothing.
        target, reached: mean bits asked for, and mean bits of the result.
        layers: name -> record of every linear layer that a forward pass reads.
        modulation: what the table of modulations holds; null, and not written, where there is none.
        omitted: tensors of the full network that no forward pass reads, left out; sorted.
        rebuilt: tensors computed at load instead of stored.
        files: relative path -> size and hash of every file but this one.
        checksum: SHA-256 of this very file as it would be with ``checksum`` empty, so that damage
            to the manifest is found as surely as damage to the files it vouches for.
    """

    format: Literal["qpack"] = "qpack"
    format_version: Version = 1
    min_reader_version: Version = 1
    producer: Producer
    source: Source
    model: ModelRecord
    rotation: RotationRecord
    quantizer: QuantizerRecord
    sampling: SamplingDefaults
    recipe: RecipeRecord
    calibration: CalibrationRecord | None = None
    target: MeanBitWidths
    reached: MeanBitWidths
    transformer_bytes: TransformerBytes
    layers: Annotated[dict[str, LayerRecord], at_most(MAX_LAYERS)]
    modulation: ModulationRecord | None = None
    omitted: Names = ()
    rebuilt: Names = ()
    files: Annotated[dict[RelativePath, FileRecord], at_most(MAX_FILES)] = Field(
        default_factory=dict
    )
    checksum: Sha256 | Literal[""] = ""

    @property
    def true_checksum(self) -> str:
        """What ``checksum`` must be for the other fields' values."""
        return hashlib.sha256(dump_json(self.model_copy(update={"checksum": ""}))).hexdigest()

    def sealed(self) -> "Manifest":
        """A copy with the right ``checksum``."""
        return self.model_copy(update={"checksum": self.true_checksum})

    @field_validator("omitted", "rebuilt")
    @classmethod
    def _sorted_and_unique(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if list(names) != sorted(set(names)):
            raise ValueError("names are not sorted, or one appears twice")
        return names

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_there(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        if self.modulation is None:
            del values["modulation"]
        return values

    @model_validator(mode="after")
    def _version_knows_the_content(self) -> Self:
        needed = oldest_version(self.quantizer, self.layers, self.modulation, self.sampling)
        if self.min_reader_version < needed:
            raise ValueError(
                f"what it holds needs min_reader_version {needed}, not {self.min_reader_version}"
            )
        return self

    @model_validator(mode="after")
    def _rotations_match_layers(self) -> Self:
        used = {layer.rotation for layer in self.layers.values()} - {"none"}
        recorded = set(self.rotation.sizes)
        if used != recorded:
            raise ValueError(
                f"rotation.sizes records {sorted(recorded)}, but the layers use {sorted(used)}"
            )
        return self
