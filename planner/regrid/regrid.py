"""Write a pack again with another bit grid.

Activation bits are a matter of the grid alone. Layers whose weight bits change are quantized anew
from the checkpoint, with the settings that the manifest records; all others keep their bytes, so
the result is the pack that a build with these bits would have made. (Going by what layers are fed
runs the network, which this does not: layers that change are then rounded to nearest, with factors
of the weight.)
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from artifacts.checkpoint.reader import Checkpoint
from artifacts.checkpoint.source import check_is_source
from artifacts.pack.file_names import COMPANION_FILES
from artifacts.pack.reader import Pack
from artifacts.pack.writer import PackWriter
from planner.allocate.grid import mean_activation_bits, rounded_down
from planner.allocate.table_share import mean_weight_bits
from planner.build.manifest import layer_warnings
from planner.build.model_card import model_card
from planner.build.progress import Progress, Silent
from planner.build.table_budget import share_of_record
from planner.build.workers import one_thread
from planner.regrid.edits import check_grid
from planner.settings import EDITED_GRID, BuildSettings, settings_of
from planner.weights.layer import quantize_layer
from schemas.bit_grid import BitGrid, MeanBitWidths
from schemas.bit_widths import UNQUANTIZED
from schemas.calibration import Calibration
from schemas.errors import UsageError
from schemas.manifest import LayerRecord, Manifest

SHOWN_NAMES = 3
TO_NEAREST = (
    "{count} layers are rounded to nearest, their factors those of the weight: the pack went by"
    " what layers are fed, which runs the network; a new build does"
)


@dataclass(frozen=True)
class RegridResult:
    """What was written.

    Attributes:
        before, after: the manifests.
        requantized: layers whose weight bits changed, in network order.
        warnings: what the user should know, one line each.
    """

    before: Manifest
    after: Manifest
    requantized: tuple[str, ...]
    warnings: list[str]


def changed_weights(pack: Pack, grid: BitGrid) -> tuple[str, ...]:
    """Layers whose weight bits ``grid`` changes, in network order."""
    records = pack.manifest.layers
    return tuple(
        name
        for name in pack.architecture.quantizable
        if name in records and grid.layers[name].weight_bits != records[name].weight_bits
    )


@torch.inference_mode()
def regrid(
    pack: Pack,
    output: Path,
    grid: BitGrid,
    *,
    checkpoint: Checkpoint | None = None,
    calibration: Calibration | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> RegridResult:
    """Write ``pack`` to ``output`` with the bits of ``grid``.

    Args:
        pack: opened with its hashes checked; what it holds is sealed again as it is.
        output: directory of the new pack; appears complete or not at all.
        grid: the bits of every layer.
        checkpoint: the pack's source; needed where weight bits change.
        calibration: the pack's own; needed where weight bits change and the recipe searches
            its smoothing.
        force: replace an older pack at ``output``.
        progress: told about every layer that is quantized.

    Raises:
        UsageError: the grid is of other layers, the checkpoint is missing or another, or the output
            exists.
        CheckpointError: a tensor is damaged.
        ResourceError: the disk is full.
    """
    check_grid(grid, list(pack.manifest.layers))
    names = changed_weights(pack, grid)
    records = dict(pack.manifest.layers)
    notes: list[str] = []
    with PackWriter(output, force=force) as writer:
        if names:
            settings = settings_of(pack.manifest.recipe, pack.architecture.family)
            if settings.goes_by_outputs:
                settings = replace(settings, weight_rounding="nearest", factor_fit="weight")
                notes.append(TO_NEAREST.format(count=len(names)))
            source = _source(pack, checkpoint, names)
            channels = _channels(settings, calibration, pack, names)
            for name in (progress or Silent()).track(names, "quantize"):
                records[name] = _add_changed(
                    writer,
                    source,
                    name,
                    records[name],
                    grid.layers[name].weight_bits,
                    settings,
                    channels,
                    pack.layer(name).smoothing if records[name].smoothing else None,
                )
            _add_unchanged(writer, pack, names)
            rotation = pack.manifest.rotation.model_copy(
                update={
                    "sizes": writer.rotation_sizes,
                    "signs": settings.rotation_signs and bool(writer.rotation_sizes),
                }
            )
        else:
            writer.adopt(pack)
            rotation = pack.manifest.rotation
        # They were predicted for other bits.
        records = {n: r.model_copy(update={"error_share": None}) for n, r in records.items()}
        old = pack.manifest
        recorded = {**old.recipe.settings, EDITED_GRID: True}
        recipe = old.recipe.model_copy(update={"settings": recorded})
        reached = MeanBitWidths(
            weight_bits=rounded_down(_mean_weight_bits(pack, records)),
            activation_bits=rounded_down(mean_activation_bits(grid)),
        )
        manifest = old.model_copy(
            update={
                "recipe": recipe,
                "rotation": rotation,
                "target": grid.target,
                "reached": reached,
                "layers": records,
            }
        )
        written = writer.finish(manifest, grid, model_card)
    changed = {name: records[name] for name in names}
    return RegridResult(
        old, written, names, [*_over_budget(written), *notes, *layer_warnings(changed)]
    )


def _mean_weight_bits(pack: Pack, records: Mapping[str, LayerRecord]) -> Fraction:
    """With what counts beside codes by the settings that the pack was built with."""
    old = pack.manifest
    if old.modulation is None and old.recipe.settings.get("smoothing") != "balance":
        return mean_weight_bits(records)
    settings = settings_of(old.recipe, pack.architecture.family)
    share = share_of_record(pack.architecture, settings, old.modulation)
    return mean_weight_bits(records, share, with_vectors=settings.pays_for_vectors)


def _source(pack: Pack, checkpoint: Checkpoint | None, names: tuple[str, ...]) -> Checkpoint:
    """The checkpoint that the pack was made from.

    Raises:
        UsageError: it was not given, or is another.
    """
    if checkpoint is None:
        shown = ", ".join(names[:SHOWN_NAMES])
        raise UsageError(
            f"the weight bits of {len(names)} layers change ({shown}), and the pack no longer has"
            " their weights",
            hint="give --checkpoint with the pack's source; activation bits alone need none",
        )
    check_is_source(checkpoint, pack.manifest)
    return checkpoint


def _channels(
    settings: BuildSettings, calibration: Calibration | None, pack: Pack, names: tuple[str, ...]
) -> Calibration | None:
    """The calibration, where the recipe smooths by it.

    Raises:
        UsageError: it was not given, or is not the one that the pack was built with.
    """
    if not settings.searches_smoothing:
        return None
    if calibration is None or any(name not in calibration.channels for name in names):
        raise UsageError(
            f"recipe {settings.recipe} smooths and needs to know the activations",
            hint="give --calibration with the file that the pack was built with",
        )
    if calibration.sampling != pack.manifest.calibration:
        raise UsageError("the pack was built with another calibration")
    return calibration


def _add_changed(
    writer: PackWriter,
    source: Checkpoint,
    name: str,
    old: LayerRecord,
    bits: int,
    settings: BuildSettings,
    calibration: Calibration | None,
    smoothing: Tensor | None,
) -> LayerRecord:
    """Quantize one layer, or keep it; returns its record.

    A layer that was balanced keeps its ``smoothing``, float32 [in].
    """
    weight, bias = f"{name}.weight", f"{name}.bias"
    if bits == UNQUANTIZED:
        for tensor in (weight, bias):
            if tensor in source:
                writer.add_tensor(tensor, source.tensor(tensor))
        return LayerRecord(
            weight_bits=bits, in_features=old.in_features, out_features=old.out_features
        )
    with one_thread():  # as in a build, to the same last bit
        layer = quantize_layer(
            name,
            source.tensor(weight),
            source.tensor(bias) if bias in source else None,
            bits,
            settings,
            None if calibration is None else calibration.channels[name],
            smoothing=smoothing,
        )
    writer.add_layer(layer.weight)
    return layer.record


def _add_unchanged(writer: PackWriter, pack: Pack, changed: tuple[str, ...]) -> None:
    """Take over everything else, byte for byte."""
    for name in pack.layer_names:
        if name not in changed:
            writer.add_layer(pack.layer(name))
    gone = {f"{name}.{part}" for name in changed for part in ("weight", "bias")}
    for name in pack.tensor_names:
        if name not in gone:
            writer.add_tensor(name, pack.tensor(name))
    if pack.table_header is not None:
        for name in pack.architecture.modulations.layers:
            writer.add_modulation(name, pack.modulation_rows(name))
    for name in COMPANION_FILES:
        if name in pack.manifest.files:
            writer.add_file(name, pack.path / name)
    prompts = pack.prompts()
    if prompts is not None:
        writer.add_prompts(prompts)


def _over_budget(manifest: Manifest) -> list[str]:
    """A line for every mean that exceeds its target."""
    return [
        f"mean {what} bits are {reached:g}, more than the target's {target:g}"
        for what, reached, target in (
            ("weight", manifest.reached.weight_bits, manifest.target.weight_bits),
            ("activation", manifest.reached.activation_bits, manifest.target.activation_bits),
        )
        if reached > target
    ]
