"""Build a pack: the method from start to end, in the paper's order.

1. Inventory: which layers take part in the forward pass.
2. Rotate every weight and measure its variance (Sec. 3.1, Eq. 12).
3. VaSMP: weight bits from the variances, without data (Sec. 3.3).
4. H-SVD and quantization of the residual, layer by layer (Sec. 3.2).
5. VaTMP: activation bits per timestep, where there is a calibration (Sec. 3.4).
6. Everything else in 16 bits; base model, bit grid, manifest.

Weights are read twice, for 2 and for 4, because the bits of the first layer depend on the variance
of the last (and factorised twice where that variance is the residual's); in return memory never
holds more than one layer. A calibration, in turn, runs the network that 4 makes:
`planner.build.calibrated_build` builds first, measures, and then replaces the grid.

What 2 and 4 find is kept in a work folder where there is one (`planner.build.work_folder`), so that
an interrupted build goes on with the first layer that is not there.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from artifacts.checkpoint.reader import Checkpoint
from artifacts.dit4sr.layout import block_linears
from artifacts.files.safetensors_io import Header
from artifacts.pack.writer import PackWriter, check_output
from planner.allocate.grid import make_grid, mean_activation_bits, rounded_down
from planner.allocate.vasmp import LayerStatistics
from planner.allocate.weight_bits import uniform_bits, weight_bits
from planner.build.base_model import BaseModel
from planner.build.inventory import Inventory, take_inventory
from planner.build.model_card import model_card
from planner.build.work_folder import WorkFolder, make_plan
from planner.calibrate.calibration_file import check_calibration
from planner.settings import BuildSettings
from planner.timesteps import sampling_timesteps
from planner.weights.layer import QuantizedLayer, allocation_variance, quantize_layer, rotation_for
from schemas.bit_grid import UNQUANTIZED, MeanBitWidths
from schemas.calibration import Calibration, ChannelStatistics
from schemas.json_io import dump_json
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


def build_resumable(
    checkpoint: Checkpoint,
    output: Path,
    settings: BuildSettings,
    base: BaseModel,
    work: WorkFolder,
    *,
    calibration: Calibration | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> BuildResult:
    """Build a pack as `build` does, going on with what an interrupted build left in ``work``.

    What lies beside the transformer may be another than it was: the layers do not depend on it.

    Raises:
        UsageError: as `build`, or the unfinished build had another source or other settings.
        CheckpointError: a tensor is damaged.
        ResourceError: the disk is full; what is finished is kept.
    """
    check_output(output, force=force)
    source = Source(files=tuple(checkpoint.source_files()))
    known = None if calibration is None else hashlib.sha256(dump_json(calibration)).hexdigest()
    work.open(make_plan(source, settings, calibration=known))
    with work.removed_when_refused():
        result = build(
            checkpoint,
            output,
            settings,
            base,
            calibration=calibration,
            force=force,
            progress=progress,
            work=work,
            source=source,
        )
    work.remove()
    return result


@torch.inference_mode()
def build(
    checkpoint: Checkpoint,
    output: Path,
    settings: BuildSettings,
    base: BaseModel,
    *,
    calibration: Calibration | None = None,
    force: bool = False,
    progress: Progress | None = None,
    work: WorkFolder | None = None,
    source: Source | None = None,
) -> BuildResult:
    """Build a pack at ``output``; the same inputs and settings give the same bytes.

    Args:
        checkpoint: the source.
        output: directory of the pack; appears complete or not at all.
        settings: what to do.
        base: autoencoder, scheduler, prompts and sampling defaults to put beside the transformer.
        calibration: what the network's layers are fed; without one, every timestep gets the same
            activation bits.
        force: replace an older pack.
        progress: told about every layer.
        work: an open work folder: what it holds is taken over, what is finished is added.
        source: the checkpoint's files, where the caller has hashed them already.

    Raises:
        UsageError: the target cannot be reached, a pattern finds nothing, the output exists, or the
            calibration is missing where the settings need one, or is of another network.
        CheckpointError: a tensor is damaged.
        ResourceError: the disk is full.
    """
    progress = progress or Silent()
    with PackWriter(output, force=force) as writer:
        inventory = take_inventory(checkpoint, settings)
        if not settings.uses_calibration:
            calibration = None
        check_calibration(calibration, checkpoint, inventory.quantized, settings)

        linears = block_linears(checkpoint.config)
        if settings.weight_allocation == "uniform":
            bits = uniform_bits(inventory.quantized, settings)
        else:
            bits = weight_bits(measure(checkpoint, inventory, settings, progress, work), settings)

        channels = {} if calibration is None else calibration.channels
        records: dict[str, LayerRecord] = {}
        for name in progress.track(inventory.quantized, "quantize"):
            layer, file = finished_layer(
                checkpoint,
                name,
                linears[name].in_features,
                bits[name],
                settings,
                channels.get(name),
                work,
            )
            writer.add_layer(layer.weight, file)
            record = layer.record
            shown = "exact" if record.error_db is None else f"{record.error_db:.1f} dB"
            progress.note(f"{name} {bits[name]} bits, {shown}")
            records[name] = record
        for name in inventory.plain:
            writer.add_tensor(name, checkpoint.tensor(name))
        base.add_to(writer)

        for name in inventory.kept:
            out_features, in_features = linears[name]
            records[name] = LayerRecord(
                weight_bits=UNQUANTIZED, in_features=in_features, out_features=out_features
            )
        bits |= dict.fromkeys(inventory.kept, UNQUANTIZED)
        steps = sampling_timesteps(base.sampling.steps, base.sampling.shift)
        grid, grid_warnings = make_grid(settings, bits, steps, calibration)
        manifest = Manifest(
            producer=Producer(name="qplan", version=version("qdit4sr")),
            source=source or Source(files=tuple(checkpoint.source_files())),
            model=ModelRecord(variant=settings.variant, config=checkpoint.config),
            rotation=RotationRecord(
                enabled=settings.rotation,
                signs=settings.rotation and settings.rotation_signs and bool(writer.rotation_sizes),
                seed=settings.seed,
                sizes=writer.rotation_sizes,
            ),
            quantizer=QuantizerRecord(
                weight_scale=settings.weight_scale, activation_scale=settings.activation_scale
            ),
            sampling=base.sampling,
            recipe=Recipe(name=settings.recipe, settings=settings.recorded()),
            calibration=None if calibration is None else calibration.sampling,
            target=settings.target.to_schema(),
            reached=MeanBitWidths(
                weight_bits=rounded_down(mean_weight_bits(records)),
                activation_bits=rounded_down(mean_activation_bits(grid)),
            ),
            transformer_bytes=TransformerBytes(source=checkpoint.file_bytes),
            layers=records,
            omitted=inventory.omitted,
            rebuilt=inventory.rebuilt,
        )
        written = writer.finish(manifest, grid, model_card)
    return BuildResult(written, [*grid_warnings, *layer_warnings(records), *base.warnings])


def measure(
    checkpoint: Checkpoint,
    inventory: Inventory,
    settings: BuildSettings,
    progress: Progress | None = None,
    work: WorkFolder | None = None,
) -> list[LayerStatistics]:
    """Variance of every rotated weight, or of its residual: all that VaSMP needs to know."""
    progress = progress or Silent()
    linears = block_linears(checkpoint.config)
    variances = {} if work is None else work.variances()
    for name in progress.track(inventory.quantized, "measure"):
        if name not in variances:
            # No name for the weight: it would hold on to it while the next is read.
            variances[name] = allocation_variance(checkpoint.tensor(f"{name}.weight"), settings)
            if work is not None:
                work.keep_variances(variances)
    return [
        LayerStatistics(
            name, linears[name].out_features * linears[name].in_features, variances[name]
        )
        for name in inventory.quantized
    ]


def finished_layer(
    checkpoint: Checkpoint,
    name: str,
    in_features: int,
    bits: int,
    settings: BuildSettings,
    channels: ChannelStatistics | None,
    work: WorkFolder | None,
) -> tuple[QuantizedLayer, Header | None]:
    """One quantized layer, and the file in ``work`` that holds it; made if it is not there."""
    if work is not None:
        kept = work.layer(name, bits, *rotation_for(in_features, settings))
        if kept is not None:
            return QuantizedLayer(kept.weight, kept.record), kept.header
    layer = quantize_layer(
        name,
        checkpoint.tensor(f"{name}.weight"),
        checkpoint.tensor(f"{name}.bias"),
        bits,
        settings,
        channels,
    )
    return layer, None if work is None else work.keep_layer(layer)


def mean_weight_bits(records: Mapping[str, LayerRecord]) -> Fraction:
    """Parameter-weighted mean over the quantized layers, exactly."""
    sizes = {
        name: record.out_features * record.in_features
        for name, record in records.items()
        if record.is_quantized
    }
    stored = sum(size * records[name].weight_bits for name, size in sizes.items())
    return Fraction(stored, sum(sizes.values()))


def layer_warnings(records: Mapping[str, LayerRecord]) -> list[str]:
    """One line for every layer that went otherwise than planned."""
    return [f"layer {name}: {record.note}" for name, record in records.items() if record.note]
