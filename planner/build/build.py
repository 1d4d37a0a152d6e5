"""Build a pack: the method from start to end, in the paper's order.

1. Inventory: which layers take part in the forward pass.
2. Rotate every weight and measure its variance (Sec. 3.1, Eq. 12).
   A build that balances smooths the layers for which it pays (ours).
3. VaSMP: weight bits from the variances, without data (Sec. 3.3); or by sensitivity (ours).
4. H-SVD and quantization of the residual, layer by layer (Sec. 3.2).
5. VaTMP: activation bits per timestep, where there is a calibration (Sec. 3.4); or by sensitivity.
6. Everything else in 16 bits, modulations as a table if so asked; base model, bit grid, manifest.

Weights are read twice, for 2 and for 4, because the bits of the first layer depend on the variance
of the last (and factorised twice where that variance is the residual's); in return memory never
holds more than one layer. A calibration, in turn, runs the network that 4 makes:
`planner.build.calibrated_build` builds first, measures, and then replaces the grid.

`planner.build.resumable` does the same in a work folder, so that an interrupted build goes on.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from artifacts.checkpoint.reader import Checkpoint
from artifacts.pack.writer import PackWriter
from planner.allocate.error_shares import error_shares
from planner.allocate.grid import make_grid
from planner.allocate.sensitivity import activation_costs, weight_costs
from planner.build.base_model import BaseModel
from planner.build.inventory import take_inventory
from planner.build.layers import LayerMaker
from planner.build.manifest import layer_warnings, make_manifest
from planner.build.model_card import model_card
from planner.build.modulation import check_modulation, in_16_bits, table_record, table_rows
from planner.build.progress import Progress, Silent
from planner.build.table_budget import share_of_record
from planner.build.weight_decisions import decide_weights
from planner.build.work import layer_work
from planner.build.work_folder import WorkFolder
from planner.calibrate.calibration_file import check_calibration
from planner.moments.kept import SecondMoments, check_moments
from planner.probe.sensitivity_file import check_sensitivity
from planner.settings import BuildSettings
from planner.timesteps import sampling_timesteps
from schemas.bit_widths import UNQUANTIZED
from schemas.calibration import Calibration
from schemas.manifest import LayerRecord, Manifest, Source
from schemas.sensitivity import SensitivityMap


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
    calibration: Calibration | None = None,
    sensitivity: SensitivityMap | None = None,
    moments: SecondMoments | None = None,
    force: bool = False,
    progress: Progress | None = None,
    work: WorkFolder | None = None,
    source: Source | None = None,
    device: torch.device | None = None,
) -> BuildResult:
    """Build a pack at ``output``; the same inputs and settings give the same bytes.

    Args:
        checkpoint: the source.
        output: directory of the pack; appears complete or not at all.
        settings: what to do.
        base: autoencoder, scheduler, prompts and sampling defaults to put beside the transformer.
        calibration: what the network's layers are fed; without one, every timestep gets the same
            activation bits.
        sensitivity: of the network, for settings whose bits go by it.
        moments: of layers' inputs, for settings that round or balance by them.
        force: replace an older pack.
        progress: told about every layer.
        work: an open work folder: what it holds is taken over, what is finished is added.
        source: the checkpoint's files, where the caller has hashed them already.
        device: what factorises and quantizes; None for the CPU.

    Raises:
        UsageError: the target cannot be reached, a pattern finds nothing, the output exists, or the
            calibration is missing where the settings need one, or is of another network, or there
            are no prompts to table modulations for, or no second moments to go by.
        CheckpointError: a tensor is damaged.
        ResourceError: the disk is full.
    """
    settings = settings.resolved(checkpoint)
    architecture = checkpoint.architecture(settings.variant)
    shapes = architecture.quantizable
    if not settings.uses_moments:
        moments = None
    maker = LayerMaker(checkpoint, settings, shapes, progress or Silent(), work, device, moments)
    with PackWriter(output, force=force) as writer:
        # 1. Inventory.
        inventory = take_inventory(checkpoint, settings)
        names = inventory.quantized
        if not settings.uses_calibration:
            calibration = None
        check_calibration(calibration, checkpoint, names, settings)

        if not settings.uses_sensitivity:
            sensitivity = None
        check_sensitivity(sensitivity, checkpoint, names, settings)
        check_modulation(settings, architecture, base)
        check_moments(moments, names, settings)

        counts_work = settings.budget == "bit-operations"
        work_of = layer_work(architecture, base) if counts_work else None

        table = table_record(settings, base)

        # 2, 3. Variances, and from them, or with sensitivities, weight bits.
        share = share_of_record(architecture, settings, table)
        decided = decide_weights(maker, names, sensitivity, work_of, share)
        bits = decided.bits

        # 4. Factors and codes.
        records: dict[str, LayerRecord] = {}
        channels = {} if calibration is None else calibration.channels
        for layer, file in maker.layers(names, bits, channels, decided.smoothed):
            writer.add_layer(layer.weight, file)
            records[layer.weight.name] = layer.record

        # 5. The grid: activation bits beside the weights'.
        for name in inventory.kept:
            records[name] = LayerRecord(weight_bits=UNQUANTIZED, **shapes[name]._asdict())
            bits[name] = UNQUANTIZED
        steps = sampling_timesteps(base.sampling)
        costs = None if sensitivity is None else activation_costs(decided.activations, sensitivity)
        grid, grid_warnings = make_grid(settings, bits, steps, calibration, costs, work_of)
        if sensitivity is not None and costs is not None:
            shares = error_shares(weight_costs(decided.weights, sensitivity), costs, grid)
            for name, part in shares.items():
                records[name] = records[name].model_copy(update={"error_share": part})

        # 6. The rest, and what describes it.
        for name in inventory.plain:
            writer.add_tensor(name, checkpoint.tensor(name))
        if table is not None:
            for name, rows in table_rows(checkpoint, architecture, table, base, maker.progress):
                writer.add_modulation(name, in_16_bits(rows))
        base.add_to(writer)
        manifest = make_manifest(
            architecture,
            settings,
            inventory,
            records,
            grid,
            source=source or Source(files=tuple(checkpoint.source_files())),
            source_bytes=checkpoint.file_bytes,
            rotations=writer.rotation_sizes,
            sampling=base.sampling,
            calibration=calibration,
            modulation=table,
        )
        written = writer.finish(manifest, grid, model_card)
    return BuildResult(written, [*grid_warnings, *layer_warnings(records), *base.warnings])
