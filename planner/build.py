"""Build a pack: the method from start to end, in the paper's order.

1. Inventory: which layers take part in the forward pass.
2. Rotate every weight and measure its variance (Sec. 3.1, Eq. 12).
3. VaSMP: weight bits from the variances, without data (Sec. 3.3).
4. H-SVD and quantization of the residual, layer by layer (Sec. 3.2).
5. Everything else in 16 bits; base model, bit grid, manifest.

Weights are read twice, for 2 and for 4, because the bits of the first layer depend on the variance
of the last; in return memory never holds more than one layer.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from artifacts.checkpoint import Checkpoint
from artifacts.layout import block_linears
from artifacts.pack_writer import PackWriter
from planner.base_model import BaseModel
from planner.exact_allocation import allocate_exact
from planner.inventory import Inventory, take_inventory
from planner.layer import mean_row_variance, quantize_layer, rotate
from planner.model_card import model_card
from planner.settings import BuildSettings
from planner.timesteps import sampling_timesteps
from planner.vasmp import LayerStatistics, allocate, mean_bits
from schemas.bit_grid import BitGrid, LayerBits, MeanBitWidths
from schemas.errors import UsageError
from schemas.manifest import (
    LayerRecord,
    Manifest,
    ModelRecord,
    Producer,
    QuantizerRecord,
    Recipe,
    RotationRecord,
    Source,
    TransformerBytes,
)

UNQUANTIZED = 16
Item = TypeVar("Item")


class Progress(Protocol):
    """How a build tells how far it is."""

    def track(self, items: Sequence[Item], stage: str) -> Iterable[Item]:
        """Yield ``items`` while showing ``stage`` and how many are done."""
        ...

    def note(self, text: str) -> None:
        """Say something about the item in work."""
        ...


class Silent:
    """No progress at all."""

    def track(self, items: Sequence[Item], stage: str) -> Iterable[Item]:
        """Yield ``items``."""
        return items

    def note(self, text: str) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class BuildResult:
    """What a build made.

    Attributes:
        manifest: as written.
        warnings: what the user should know, one line each.
    """

    manifest: Manifest
    warnings: list[str] = field(default_factory=list)


@torch.inference_mode()
def build(
    checkpoint: Checkpoint,
    output: Path,
    settings: BuildSettings,
    base: BaseModel,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> BuildResult:
    """Build a pack at ``output``; the same inputs and settings give the same bytes.

    Args:
        checkpoint: the source.
        output: directory of the pack; appears complete or not at all.
        settings: what to do.
        base: autoencoder, scheduler, prompts and sampling defaults to put beside the transformer.
        force: replace an older pack.
        progress: told about every layer.

    Raises:
        UsageError: the target cannot be reached, a pattern finds nothing, or the output exists.
        CheckpointError: a tensor is damaged.
        ResourceError: the disk is full.
    """
    progress = progress or Silent()
    with PackWriter(output, force=force) as writer:
        inventory = take_inventory(checkpoint, settings)
        if not inventory.quantized:
            raise UsageError(
                "the patterns keep every layer in 16 bits: nothing is left to quantize"
            )

        statistics = measure(checkpoint, inventory, settings, progress)
        bits = weight_bits(statistics, settings)

        records: dict[str, LayerRecord] = {}
        for name in progress.track(inventory.quantized, "quantize"):
            record = add_quantized(writer, checkpoint, name, bits[name], settings)
            shown = "exact" if record.error_db is None else f"{record.error_db:.1f} dB"
            progress.note(f"{name} {bits[name]} bits, {shown}")
            records[name] = record
        for name in inventory.plain:
            writer.add_tensor(name, checkpoint.tensor(name))
        base.add_to(writer)

        linears = block_linears(checkpoint.config)
        for name in inventory.kept:
            out_features, in_features = linears[name]
            records[name] = LayerRecord(
                weight_bits=UNQUANTIZED, in_features=in_features, out_features=out_features
            )
        grid, activation_warning = bit_grid(settings, bits, inventory, base)
        manifest = Manifest(
            producer=Producer(name="qplan", version=version("qdit4sr")),
            source=Source(files=tuple(checkpoint.source_files())),
            model=ModelRecord(variant=settings.variant, config=checkpoint.config),
            rotation=RotationRecord(
                enabled=settings.rotation,
                signs=settings.rotation and settings.rotation_signs and bool(writer.rotation_sizes),
                seed=settings.seed,
                sizes=writer.rotation_sizes,
            ),
            quantizer=QuantizerRecord(weight_scale="gaussian", activation_scale="gaussian"),
            sampling=base.sampling,
            recipe=Recipe(name="q-dit4sr", settings=settings.recorded()),
            target=settings.target.to_schema(),
            reached=MeanBitWidths(
                weight_bits=rounded_down(mean_bits(statistics, bits)),
                activation_bits=rounded_down(mean_activation_bits(grid, inventory.quantized)),
            ),
            transformer_bytes=TransformerBytes(source=checkpoint.file_bytes),
            layers=records,
            omitted=inventory.omitted,
            rebuilt=inventory.rebuilt,
        )
        written = writer.finish(manifest, grid, model_card)
    return BuildResult(written, [*activation_warning, *layer_warnings(records), *base.warnings])


def measure(
    checkpoint: Checkpoint,
    inventory: Inventory,
    settings: BuildSettings,
    progress: Progress | None = None,
) -> list[LayerStatistics]:
    """Variance of every rotated weight: all that VaSMP needs to know."""
    progress = progress or Silent()
    linears = block_linears(checkpoint.config)
    return [
        LayerStatistics(
            name,
            linears[name].out_features * linears[name].in_features,
            # No name for the weight: it would hold on to it while the next is read.
            mean_row_variance(rotate(checkpoint.tensor(f"{name}.weight"), settings)),
        )
        for name in progress.track(inventory.quantized, "measure")
    ]


def weight_bits(statistics: Sequence[LayerStatistics], settings: BuildSettings) -> dict[str, int]:
    """VaSMP: layer name -> weight bits, with the allocator that was asked for."""
    solve = allocate_exact if settings.allocator == "exact" else allocate
    return solve(
        statistics,
        settings.target.weight_bits,
        minimum_bits=settings.minimum_bits,
        maximum_bits=settings.maximum_bits,
    )


def add_quantized(
    writer: PackWriter, checkpoint: Checkpoint, name: str, bits: int, settings: BuildSettings
) -> LayerRecord:
    """Read, quantize and write one layer; nothing but its record stays in memory."""
    layer = quantize_layer(
        name,
        checkpoint.tensor(f"{name}.weight"),
        checkpoint.tensor(f"{name}.bias"),
        bits,
        settings,
    )
    writer.add_layer(layer.weight)
    return layer.record


def bit_grid(
    settings: BuildSettings, bits: Mapping[str, int], inventory: Inventory, base: BaseModel
) -> tuple[BitGrid, list[str]]:
    """The grid without calibration: every layer gets the target's activation bits at every step.

    Returns:
        The grid, and a warning where the target is fractional: without knowing the activations
        there is no telling which steps deserve the larger part, so all get the smaller.
    """
    timesteps = sampling_timesteps(base.sampling.steps, base.sampling.shift)
    asked = settings.target.activation_bits
    warnings = []
    if asked != int(asked):
        warnings.append(f"activation bits {asked} need calibration; every step gets {int(asked)}")
    layers = {
        name: LayerBits(weight_bits=b, activation_bits=(int(asked),) * len(timesteps))
        for name, b in bits.items()
    }
    for name in inventory.kept:
        layers[name] = LayerBits(
            weight_bits=UNQUANTIZED, activation_bits=(UNQUANTIZED,) * len(timesteps)
        )
    grid = BitGrid(target=settings.target.to_schema(), timesteps=timesteps, layers=layers)
    return grid, warnings


def mean_activation_bits(grid: BitGrid, names: Sequence[str]) -> Fraction:
    """Mean over the layers ``names`` and all timesteps."""
    values = [bits for name in names for bits in grid.layers[name].activation_bits]
    return Fraction(sum(values), len(values))


def rounded_down(mean: Fraction) -> int | float:
    """A mean to six decimals for the manifest; down, so that it never exceeds the target."""
    millionths = math.floor(mean * 10**6)
    whole, rest = divmod(millionths, 10**6)
    return millionths / 10**6 if rest else whole


def layer_warnings(records: Mapping[str, LayerRecord]) -> list[str]:
    """One line for every layer that went otherwise than planned."""
    return [f"layer {name}: {record.note}" for name, record in records.items() if record.note]
