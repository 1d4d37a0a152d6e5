"""A network family: all that files and plans need to know of an architecture, in one record.

The pack, the planner and the runtime are written for any network whose weights are linear layers;
what a particular architecture adds stands in a room of its own (``artifacts/dit4sr/`` with
``runtime/dit4sr/``) behind the `Family` here. CONTRIBUTING.md says how to add one.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from artifacts.files.safetensors_io import Header
from schemas.errors import UsageError
from schemas.manifest import ModelRecord, SamplingDefaults
from schemas.strict import StrictModel

IMAGE_ENCODER_FOLDER = "image_encoder"
"""In a base model's folder, for networks that read features of the picture."""

Shape = tuple[int, ...]
Config = Any
"""A family's own configuration: a frozen `StrictModel`, of the type `Family.config_type`."""


class LinearShape(NamedTuple):
    """Shape of a linear layer's weight."""

    out_features: int
    in_features: int


class LatentSize(NamedTuple):
    """What latents a network takes, in latent pixels.

    Attributes:
        patch_size: side of one token's patch; sides are multiples of it.
        largest_tile: longest side.
        channels: of the latent.
    """

    patch_size: int
    largest_tile: int
    channels: int


@dataclass(frozen=True)
class AttentionWork:
    """Multiply-accumulates of one forward pass between activations, inside attention.

    Attributes:
        scores: of queries with keys, QKᵀ.
        values: of probabilities with values, PV.
    """

    scores: int
    values: int

    @property
    def macs(self) -> int:
        """Both together."""
        return self.scores + self.values


@dataclass(frozen=True)
class RebuiltTensor:
    """A tensor of the state dict that follows from the configuration.

    Networks do without it: they compute what a pass reads of it, and hold the tensor only where a
    state dict brings one.

    Attributes:
        build: configuration -> the tensor, float32.
        equals: tensor, configuration -> whether it is that tensor, up to rounding. A checkpoint may
            hold other values; they are then stored like any tensor.
    """

    build: Callable[[Config], Tensor]
    equals: Callable[[Tensor, Config], bool]


@dataclass(frozen=True)
class Modulations:
    """Linear layers that read nothing but the timestep and the pooled prompt, as those of AdaLN do.

    What they give can be tabled: it takes as many values as there are pairs of the two.

    Attributes:
        layers: name -> shape of the weight, in network order; each layer has a bias.
        tensors: the parameters of these layers, and of the modules that make what they read, as far
            as nothing else reads that. A network with the table does without all of them.
    """

    layers: Mapping[str, LinearShape]
    tensors: frozenset[str]


NO_MODULATIONS = Modulations({}, frozenset())
"""Of a network that has none."""


@dataclass(frozen=True)
class ConfigFile:
    """The file of a checkpoint that says the network's configuration.

    Attributes:
        name: of the file.
        shared: whether it also holds what other programs want to know, so that keys which the
            configuration lacks are nothing to speak of.
    """

    name: str
    shared: bool = False


@dataclass(frozen=True, eq=False)
class Family:
    """One architecture.

    Attributes:
        name: as manifests record it; lower-case letters, digits and dashes.
        title: as people write it.
        variants: published networks of equal shapes and different forward passes; the first is
            taken where nobody says which.
        config_type: model of the configuration, in the words of `config_file`.
        describe: configuration -> its size in a few words.
        licence_note: what whoever passes weights on should know of their licence, one sentence.
        presets: configurations that users may name instead of a checkpoint.
        sampling: how the published network is sampled.
        lacks: tensor names -> which needed ones are absent; an empty list means that a checkpoint
            is of this family.
        is_base_model: tensor names -> whether they are those of the model that this family's
            networks are trained from; names may have any prefix.
        config_from_shapes: path (for messages), shapes, headers -> configuration of a checkpoint
            that comes without one; raises `CheckpointError`.
        tensor_shapes: configuration -> shape of every tensor of the state dict, in network order.
        quantizable: configuration -> shape of every linear layer that can be quantized, by name, in
            network order.
        unread_tensors: configuration, variant -> tensors that no forward pass reads.
        modulations: configuration -> layers whose results can be tabled; all of them are read.
        rebuilt: tensors that need not be stored.
        latent_size: configuration -> the latents that the network takes.
        prompt_shapes: configuration, prompt tokens -> shapes of one prompt's embeddings, by part;
            or of the picture's features, where the network is given these.
        text_tokens: of a prompt, or features, as the published network is given them.
        vae_factor: image pixels per latent pixel of the published autoencoder, along one side.
        streams: patches of the latent, prompt tokens -> tokens of every stream of a forward pass.
        tokens_through: layer name, tokens of the streams -> tokens through that layer.
        attention_work: configuration, tokens of the streams -> work inside attention.
        runtime: module with the `runtime.network.family.NetworkFamily` of this family, under the
            name ``FAMILY``. A name, not an import: files do not need the network.
        hub_name: where the published network is hosted, ``org/name`` on the Hugging Face Hub, or
            an empty string.
        condition: what the network is given beside latents and timestep: embeddings of prompts,
            which a pack may hold, or features of the very picture, which every run makes.
        base_title: of the model whose folder ``--base`` names, as people write it.
        config_file: of a checkpoint's folder.
        weight_folders: where in a checkpoint's folder the weights may lie, beside the folder itself
            and ``transformer``; the first that has some is taken. `config_file` then lies in it, or
            in the checkpoint's folder.
    """

    name: str
    title: str
    variants: tuple[str, ...]
    config_type: type[StrictModel]
    describe: Callable[[Config], str]
    licence_note: str
    presets: Mapping[str, Config]
    sampling: SamplingDefaults
    lacks: Callable[[Mapping[str, Shape]], list[str]]
    is_base_model: Callable[[Mapping[str, Shape]], bool]
    config_from_shapes: Callable[[Path, Mapping[str, Shape], tuple[Header, ...]], Config]
    tensor_shapes: Callable[[Config], dict[str, Shape]]
    quantizable: Callable[[Config], dict[str, LinearShape]]
    unread_tensors: Callable[[Config, str], frozenset[str]]
    modulations: Callable[[Config], Modulations]
    rebuilt: Mapping[str, RebuiltTensor]
    latent_size: Callable[[Config], LatentSize]
    prompt_shapes: Callable[[Config, int], dict[str, Shape]]
    text_tokens: int
    vae_factor: int
    streams: Callable[[int, int], dict[str, int]]
    tokens_through: Callable[[str, Mapping[str, int]], int]
    attention_work: Callable[[Config, Mapping[str, int]], AttentionWork]
    runtime: str
    hub_name: str = ""
    condition: Literal["prompts", "picture"] = "prompts"
    base_title: str = "base model"
    config_file: ConfigFile = ConfigFile("config.json")
    weight_folders: tuple[str, ...] = ()

    @property
    def reads_picture(self) -> bool:
        """Whether the network is given features of the picture, and no prompts."""
        return self.condition == "picture"

    def check_variant(self, variant: str) -> str:
        """Return ``variant``.

        Raises:
            UsageError: the family has no such variant.
        """
        if variant not in self.variants:
            raise UsageError(
                f"there is no variant {variant!r} of {self.title}",
                hint="one of: " + ", ".join(self.variants),
            )
        return variant


@dataclass(frozen=True)
class Architecture:
    """One network of a family: everything about it but the weights.

    Attributes:
        family: of the network.
        config: its shapes.
        variant: which of the family's forward passes it is for.
    """

    family: Family
    config: Config
    variant: str

    @cached_property
    def tensor_shapes(self) -> Mapping[str, Shape]:
        """Shape of every tensor of the state dict, in network order."""
        return self.family.tensor_shapes(self.config)

    @cached_property
    def quantizable(self) -> Mapping[str, LinearShape]:
        """Shape of every linear layer that can be quantized, in network order."""
        return self.family.quantizable(self.config)

    @cached_property
    def latent_size(self) -> LatentSize:
        """The latents that the network takes."""
        return self.family.latent_size(self.config)

    @cached_property
    def unread_tensors(self) -> frozenset[str]:
        """Tensors that no forward pass reads."""
        return self.family.unread_tensors(self.config, self.variant)

    @cached_property
    def modulations(self) -> Modulations:
        """Layers whose results can be tabled."""
        return self.family.modulations(self.config)

    @cached_property
    def parameter_shapes(self) -> Mapping[str, Shape]:
        """`tensor_shapes` without what can be rebuilt: the parameters."""
        return {n: s for n, s in self.tensor_shapes.items() if n not in self.family.rebuilt}

    def count_tokens(
        self, side_px: int, text_tokens: int, *, vae_factor: int | None = None
    ) -> dict[str, int]:
        """Tokens of every stream for a square result of ``side_px``.

        Args:
            side_px: side of the result, in px.
            text_tokens: of the prompt.
            vae_factor: image pixels per latent pixel; None for the published autoencoder's.

        Raises:
            UsageError: the result does not divide into latent pixels and patches, or no token is
                left.
        """
        factor = self.family.vae_factor if vae_factor is None else vae_factor
        token_px = factor * self.latent_size.patch_size
        if side_px < token_px or side_px % token_px:
            nearest = max(1, round(side_px / token_px)) * token_px
            raise UsageError(
                f"an image of {side_px} px does not divide into tokens of {token_px} px",
                hint=f"the nearest size that does is {nearest} px",
            )
        if text_tokens < 0:
            raise UsageError(f"{text_tokens} text tokens", hint="give 0 or more")
        return self.family.streams((side_px // token_px) ** 2, text_tokens)

    @cached_property
    def sampling(self) -> SamplingDefaults:
        """The family's sampling defaults, with tiles that this network takes."""
        defaults, size = self.family.sampling, self.latent_size
        tile = min(defaults.tile_latent, size.largest_tile) // size.patch_size * size.patch_size
        overlap = defaults.overlap_latent * tile // defaults.tile_latent
        fitting = {
            "tile_latent": tile,
            "overlap_latent": overlap // size.patch_size * size.patch_size,
        }
        return defaults.model_copy(update=fitting)

    def wrong_sampling(self, defaults: SamplingDefaults) -> str | None:
        """Which of a model's sampling defaults this network cannot run with; None for none."""
        size = self.latent_size
        if not size.patch_size <= defaults.tile_latent <= size.largest_tile:
            return (
                f"tile_latent is {defaults.tile_latent}; this network takes {size.patch_size} to"
                f" {size.largest_tile}"
            )
        for field in ("tile_latent", "overlap_latent"):
            value = getattr(defaults, field)
            if value % size.patch_size:
                return f"{field} is {value}, not a multiple of the patch size {size.patch_size}"
        return None

    def prompt_shapes(self, tokens: int) -> dict[str, Shape]:
        """Names and shapes in a file of prompt embeddings: every part of both prompts."""
        parts = self.family.prompt_shapes(self.config, tokens)
        return {f"{p}.{part}": s for p in ("positive", "negative") for part, s in parts.items()}

    def record(self) -> ModelRecord:
        """The manifest's entry."""
        config = self.config.model_dump(mode="json")
        return ModelRecord(family=self.family.name, variant=self.variant, config=config)


_MODULES: dict[str, str] = {
    "dit4sr": "artifacts.dit4sr.family",
    "vosr": "artifacts.vosr.family",
}
"""Family name -> module that holds its record as ``FAMILY``; imported when first asked for."""


def register(name: str, module: str) -> None:
    """Make a family known that lies outside this package."""
    _MODULES[name] = module


def family_names() -> tuple[str, ...]:
    """Names of all known families."""
    return tuple(_MODULES)


def find_family(name: str) -> Family | None:
    """The family called ``name``, or None."""
    if name not in _MODULES:
        return None
    family: Family = importlib.import_module(_MODULES[name]).FAMILY
    return family


def families() -> list[Family]:
    """All known families."""
    return [family for name in _MODULES if (family := find_family(name)) is not None]


def preset_architecture(preset: str, variant: str | None) -> Architecture:
    """The network of a known configuration; ``variant`` None for its family's first.

    Raises:
        UsageError: there is no such preset or variant.
    """
    for family in families():
        for name, config in family.presets.items():
            if name.lower() == preset.lower():
                chosen = family.variants[0] if variant is None else variant
                return Architecture(family, config, family.check_variant(chosen))
    known = [name for family in families() for name in family.presets]
    raise UsageError(f"there is no preset {preset!r}", hint="one of: " + ", ".join(known))
