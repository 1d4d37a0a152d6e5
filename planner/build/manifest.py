"""What a manifest says of a build."""

from collections.abc import Mapping
from importlib.metadata import version

from artifacts.family import Architecture
from planner.allocate.grid import mean_activation_bits, rounded_down
from planner.allocate.table_share import mean_weight_bits
from planner.build.inventory import Inventory
from planner.build.table_budget import share_of_record
from planner.settings import BuildSettings
from schemas.bit_grid import BitGrid, MeanBitWidths
from schemas.calibration import Calibration
from schemas.manifest import (
    LayerRecord,
    Manifest,
    ModulationRecord,
    Producer,
    QuantizerRecord,
    RecipeRecord,
    RotationRecord,
    RotationSize,
    SamplingDefaults,
    Source,
    TransformerBytes,
    oldest_version,
)


def make_manifest(
    architecture: Architecture,
    settings: BuildSettings,
    inventory: Inventory,
    records: Mapping[str, LayerRecord],
    grid: BitGrid,
    *,
    source: Source,
    source_bytes: int,
    rotations: Mapping[str, RotationSize],
    sampling: SamplingDefaults,
    calibration: Calibration | None,
    modulation: ModulationRecord | None = None,
) -> Manifest:
    """The manifest, complete but for what the writer fills in.

    Args:
        architecture: of the network.
        settings: how it was quantized.
        inventory: what became of its tensors.
        records: of every layer that a forward pass reads.
        grid: the bit grid.
        source: the checkpoint's files.
        source_bytes: their size.
        rotations: of every size that a layer refers to, by size.
        sampling: defaults of an upscale.
        calibration: what decided something, or None.
        modulation: the table of modulations, or None.
    """
    quantizer = QuantizerRecord(
        weight_scale=settings.weight_scale,
        activation_scale=settings.activation_scale,
        softmax_bits=settings.softmax_bits,
    )
    version_needed = oldest_version(quantizer, records, modulation, sampling)
    return Manifest(
        format_version=version_needed,
        min_reader_version=version_needed,
        producer=Producer(name="qplan", version=version("qdit4sr")),
        source=source,
        model=architecture.record(),
        rotation=RotationRecord(
            enabled=settings.rotation,
            signs=settings.rotation and settings.rotation_signs and bool(rotations),
            seed=settings.seed,
            sizes=dict(rotations),
        ),
        quantizer=quantizer,
        sampling=sampling,
        recipe=RecipeRecord(name=settings.recipe, settings=settings.recorded()),
        calibration=None if calibration is None else calibration.sampling,
        target=settings.target.to_schema(),
        reached=MeanBitWidths(
            weight_bits=rounded_down(
                mean_weight_bits(
                    records,
                    share_of_record(architecture, settings, modulation),
                    with_vectors=settings.pays_for_vectors,
                )
            ),
            activation_bits=rounded_down(mean_activation_bits(grid)),
        ),
        transformer_bytes=TransformerBytes(source=source_bytes),
        layers=dict(records),
        modulation=modulation,
        omitted=inventory.omitted,
        rebuilt=inventory.rebuilt,
    )


def layer_warnings(records: Mapping[str, LayerRecord]) -> list[str]:
    """One line for every layer that went otherwise than planned."""
    return [f"layer {name}: {record.note}" for name, record in records.items() if record.note]
