"""From a pack to the pack that its layers learn to be."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from artifacts.checkpoint.reader import Checkpoint
from artifacts.codec.quantized_weight import QuantizedWeight
from artifacts.pack.file_names import COMPANION_FILES
from artifacts.pack.reader import Pack
from artifacts.pack.writer import PackWriter
from planner.build.model_card import model_card
from planner.learned.learn import Learned
from planner.learned.linear import LearnedLinear
from planner.learned.plan import LearningPlan
from planner.learned.session import LearningRun, learn
from planner.settings import LEARNED_PREFIX
from planner.weights.layer import signal_to_noise_db
from schemas.errors import UsageError
from schemas.manifest import (
    CalibrationRecord,
    LayerRecord,
    Manifest,
    SettingOrList,
    oldest_version,
)


@dataclass(frozen=True)
class LearnedPack:
    """What was written.

    Attributes:
        manifest: of the new pack.
        learned: what came of it.
        warnings: what the user should know, one line each.
    """

    manifest: Manifest
    learned: Learned
    warnings: list[str]


def learn_pack(
    pack: Pack,
    checkpoint: Checkpoint,
    output: Path,
    method: str,
    plan: LearningPlan,
    run: LearningRun,
    *,
    force: bool = False,
) -> LearnedPack:
    """Write what ``pack`` learns to ``output``.

    Args:
        pack: opened; with VAE and prompts.
        checkpoint: its source.
        output: directory of the new pack; appears complete or not at all.
        method: name of the plan, for the manifest.
        plan: how to learn.
        run: where, and from which pictures.
        force: replace an older pack.

    Raises:
        UsageError: no pack can hold what the plan learns, or the output exists; or as `learn`.
        ImageError: an image is damaged.
        ResourceError: the disk is full.
    """
    if plan.simulated is not None:
        raise UsageError(
            f"no pack holds what {method} learns ({plan.simulated})",
            hint="python -m benchmarks.learned measures it simulated",
        )
    made = learn(pack, checkpoint, method, plan, run)
    layers = {layer.name: layer for layer in made.student.layers}
    manifest = _write(pack, output, layers, method, plan, made.calibration, force=force)
    return LearnedPack(manifest, made.learned, made.warnings)


def _write(
    pack: Pack,
    output: Path,
    layers: Mapping[str, LearnedLinear],
    method: str,
    plan: LearningPlan,
    calibration: CalibrationRecord,
    *,
    force: bool,
) -> Manifest:
    old = pack.manifest
    records = dict(old.layers)
    with PackWriter(output, force=force) as writer:
        for name in pack.layer_names:
            folded = layers[name].folded()
            writer.add_layer(folded)
            records[name] = _record(folded, layers[name].weight, old.layers[name])
        for name in pack.tensor_names:
            writer.add_tensor(name, pack.tensor(name))
        if pack.table_header is not None:
            for name in pack.architecture.modulations.layers:
                writer.add_modulation(name, pack.modulation_rows(name))
        for name in COMPANION_FILES:
            if name in old.files:
                writer.add_file(name, pack.path / name)
        prompts = pack.prompts()
        if prompts is not None:
            writer.add_prompts(prompts)
        settings: dict[str, SettingOrList] = {
            **old.recipe.settings,
            **{f"{LEARNED_PREFIX}{name}": _plain(value) for name, value in asdict(plan).items()},
        }
        needed = oldest_version(old.quantizer, records, old.modulation, old.sampling)
        manifest = old.model_copy(
            update={
                "format_version": max(old.format_version, needed),
                "min_reader_version": max(old.min_reader_version, needed),
                "recipe": old.recipe.model_copy(update={"name": method, "settings": settings}),
                "calibration": calibration,
                "layers": records,
            }
        )
        return writer.finish(manifest, pack.bit_grid, model_card)


def _plain(value: object) -> SettingOrList:
    return list(value) if isinstance(value, tuple) else value  # type: ignore[return-value]


def _record(folded: QuantizedWeight, weight: Tensor, old: LayerRecord) -> LayerRecord:
    """The old record with the error of the new weight; balancing brings smoothing."""
    wanted = weight.double().cpu()
    noise = float((folded.decode() - wanted).square().sum())
    error_db = signal_to_noise_db(float(wanted.square().sum()), noise)
    return old.model_copy(
        update={
            "error_db": error_db,
            "error_share": None,
            "smoothing": folded.smoothing is not None,
            "token_step": folded.token_step,
        }
    )
