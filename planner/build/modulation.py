"""The modulation table of a build: what the unquantized layers give at the pack's own steps.

Layers that read nothing but timestep and pooled prompt are evaluated once for every pair of the two
that the pack is sampled with, in float32, from the checkpoint's own weights, and the results are
rounded once, to 16 bits. Memory holds one layer's weight and its rows.

One of the few planner modules that may import the runtime: what these layers read comes from the
network's own embedding of timesteps and prompts.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from artifacts.checkpoint.reader import Checkpoint
from artifacts.family import Architecture
from artifacts.pack.modulation import pooled_prompts
from planner.build.base_model import BaseModel
from planner.build.progress import Progress
from planner.build.table_budget import share_of_record
from planner.settings import BuildSettings
from planner.timesteps import sampling_timesteps
from schemas.errors import UsageError
from schemas.manifest import ModulationRecord

FELL_BACK = "without prompts there is no table of modulations: the pack holds the layers' weights"
TOO_LARGE = (
    "a table of modulations would be larger than the layers' weights: the pack holds these instead"
)


def check_modulation(settings: BuildSettings, architecture: Architecture, base: BaseModel) -> None:
    """Make sure that the table that ``settings`` ask for can be made.

    Raises:
        UsageError: the network has no such layers, or there are no prompts to make it for.
    """
    if not settings.makes_table:
        return
    if not architecture.modulations.layers:
        raise UsageError(
            f"{architecture.family.title} has no modulations to table",
            hint="--modulation weights",
        )
    if base.prompts is None:
        raise UsageError(
            "a table of modulations is one of the pack's prompts, and there are none",
            hint="give --base or --prompts, or store the layers with --modulation weights",
        )


def settle_modulation(
    settings: BuildSettings, architecture: Architecture, base: BaseModel, *, asked: bool
) -> tuple[BuildSettings, list[str]]:
    """Settings that can be built, where only the recipe wants a table; with notes for the user.

    Args:
        settings: of the build.
        architecture: the network.
        base: what goes beside it.
        asked: whether the user chose the table; then nothing else will do.

    Raises:
        UsageError: the user chose a table that cannot be made.
    """
    try:
        check_modulation(settings, architecture, base)
    except UsageError:
        if asked:
            raise
        notes = [FELL_BACK] if architecture.modulations.layers else []
        return replace(settings, modulation="weights"), notes
    record = table_record(settings, base)
    share = share_of_record(architecture, settings, record)
    if record is None or record.weights or asked or share.pays(settings.target.weight_bits):
        return settings, []
    return replace(settings, modulation="weights"), [TOO_LARGE]


def table_record(settings: BuildSettings, base: BaseModel) -> ModulationRecord | None:
    """What the manifest says of the table; None for a build without one."""
    if not settings.makes_table:
        return None
    return ModulationRecord(
        timesteps=sampling_timesteps(base.sampling),
        prompts=tuple(pooled_prompts(base.prompts or {})),
        weights=settings.modulation == "both",
    )


def table_rows(
    checkpoint: Checkpoint,
    architecture: Architecture,
    record: ModulationRecord,
    base: BaseModel,
    progress: Progress,
) -> Iterator[tuple[str, Tensor]]:
    """Every modulation layer's name and rows, float32 [prompts, timesteps, out].

    Raises:
        CheckpointError: a tensor is damaged.
    """
    pooled = torch.stack([p.float() for p in pooled_prompts(base.prompts or {}).values()])
    read = _layer_input(checkpoint, architecture, torch.tensor(record.timesteps), pooled)
    shape = (len(record.prompts), len(record.timesteps))
    for name in progress.track(tuple(architecture.modulations.layers), "table"):
        bias = checkpoint.tensor(f"{name}.bias").float()
        given = torch.nn.functional.linear(read, checkpoint.tensor(f"{name}.weight").float(), bias)
        yield name, given.unflatten(0, shape)


def in_16_bits(values: Tensor) -> Tensor:
    """Float32 values in float16 or bfloat16, whichever errs less; float16 where both are exact.

    float16 has three bits more after the point, and ends at 65,504.
    """
    rounded = (values.half(), values.bfloat16())
    return min(rounded, key=lambda r: float((r.double() - values.double()).square().sum()))


def _layer_input(
    checkpoint: Checkpoint, architecture: Architecture, timesteps: Tensor, pooled: Tensor
) -> Tensor:
    """What the layers read, float32 [prompts * timesteps, in], the prompts' steps one by one."""
    from runtime.network.family import empty_network  # noqa: PLC0415  (seconds to import)

    network = empty_network(architecture)
    layers = architecture.modulations.layers
    names = architecture.modulations.tensors - {
        f"{layer}.{part}" for layer in layers for part in ("weight", "bias")
    }
    state = {name: checkpoint.tensor(name).float() for name in sorted(names)}
    network.load_state_dict(state, strict=False, assign=True)
    return network.modulation_input(
        timesteps.repeat(len(pooled)), pooled.repeat_interleave(len(timesteps), 0)
    )
