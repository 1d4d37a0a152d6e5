"""Where the time of a whole upscale goes: a clock around every stage from file to file.

Pipelines of one pack on several backends take turns. The network is one stage of several: the
autoencoder's share shows how much a faster network could still gain.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text
from torch import nn

from runtime.bench.machine import machine_facts
from runtime.bench.parts import Clock, Part, clocked
from runtime.bench.timing import Spread
from runtime.pipeline import Pipeline
from runtime.upscale import upscale_file

NETWORK, REST = "network", "sampler and the rest"
_STAGES: tuple[Part, ...] = (
    ("files", "runtime.upscale", "read_image"),
    ("files", "runtime.upscale", "write_image"),
    ("VAE encoder", "runtime.upscale", "encode"),
    ("VAE decoder", "runtime.upscale", "decode"),
    ("resizing and colours", "runtime.upscale", "resize_visible"),
    ("resizing and colours", "runtime.upscale", "correct_color"),
)
STAGES = ("files", "resizing and colours", "VAE encoder", NETWORK, REST, "VAE decoder")
"""In the order of the tables."""


@dataclass(frozen=True)
class StageTimes:
    """One pipeline's upscales of a picture.

    Attributes:
        load: seconds to load the pipeline, once.
        whole: seconds from file to file.
        stages: seconds by stage, each without those inside it.
        passes: through the network in one upscale.
    """

    load: float
    whole: Spread
    stages: Mapping[str, Spread]
    passes: int


@dataclass(frozen=True)
class StagesResult:
    """Everything that was measured.

    Attributes:
        machine: what it was measured on, by name.
        picture: the upscaled file's name and size in px.
        sampling: what was asked of the sampler.
        clock: ``wall`` or ``processor time``.
        rounds: upscales of each pipeline, after one to warm up.
        times: by backend and dtype.
    """

    machine: Mapping[str, object]
    picture: str
    sampling: str
    clock: str
    rounds: int
    times: Mapping[str, StageTimes]


def measure_stages(
    load: Callable[[str], Pipeline],
    backends: Sequence[str],
    picture: Path,
    *,
    rounds: int,
    processor_time: bool,
    warm_ups: int = 1,
    after_round: Callable[[int], None] = lambda done: None,
) -> StagesResult:
    """Load a pipeline for every backend, then let them take turns at one picture.

    Args:
        load: backend -> pipeline, of one pack.
        backends: their names, or ``auto``.
        picture: a file that `runtime.upscale.upscale_file` takes.
        rounds: of all pipelines, after those that warm up.
        warm_ups: rounds whose times are not kept.
        processor_time: count this process's processor time instead of the wall's.
        after_round: told how many rounds are over.
    """
    now = time.process_time if processor_time else time.perf_counter
    pipelines: dict[str, Pipeline] = {}
    loads: dict[str, float] = {}
    for backend in backends:
        began = now()
        pipeline = load(backend)
        name = f"{backend} {str(pipeline.dtype).removeprefix('torch.')}"
        pipelines[name], loads[name] = pipeline, now() - began
    found: dict[str, list[Clock]] = {name: [] for name in pipelines}
    size = ""
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds + warm_ups):
            for name, pipeline in pipelines.items():
                settings = pipeline.sampling.override(patch_size=pipeline.patch_size)
                clock = Clock(_waiting(now, pipeline.device))
                with clocked(clock, (*_STAGES, _network_part(pipeline))):
                    report = clock.around(REST, upscale_file)(
                        pipeline, picture, Path(folder, "out.png"), settings
                    )
                size = f"{report.width // 4}x{report.height // 4} px"
                if turn >= warm_ups:
                    found[name].append(clock)
            after_round(turn)
    device = next(iter(pipelines.values())).device
    return StagesResult(
        machine=machine_facts(device),
        picture=f"{picture.name}, {size}",
        sampling=f"{settings.steps} steps, guidance {settings.guidance}",
        clock="processor time" if processor_time else "wall",
        rounds=rounds,
        times={name: _summary(loads[name], clocks) for name, clocks in found.items()},
    )


def _network_part(pipeline: Pipeline) -> Part:
    """The function through which the sampler calls the network, or its CUDA graphs."""
    kind = type(pipeline.velocity)
    called = "forward" if issubclass(kind, nn.Module) else "__call__"
    return NETWORK, kind.__module__, f"{kind.__qualname__}.{called}"


def _waiting(now: Callable[[], float], device: torch.device) -> Callable[[], float]:
    """``now`` after all work on ``device`` is done."""
    if device.type != "cuda":
        return now

    def wait() -> float:
        torch.cuda.synchronize(device)
        return now()

    return wait


def _summary(load: float, clocks: Sequence[Clock]) -> StageTimes:
    return StageTimes(
        load=load,
        whole=Spread.of([sum(clock.seconds.values()) for clock in clocks]),
        stages={
            stage: Spread.of([clock.seconds.get(stage, 0.0) for clock in clocks])
            for stage in STAGES
        },
        passes=clocks[0].calls.get(NETWORK, 0),
    )


def stages_json(result: StagesResult) -> dict[str, Any]:
    """One JSON object; times in seconds."""

    def spread(times: Spread) -> dict[str, float]:
        return {name: round(seconds, 4) for name, seconds in vars(times).items()}

    return {
        "machine": dict(result.machine),
        "picture": result.picture,
        "sampling": result.sampling,
        "clock": result.clock,
        "rounds": result.rounds,
        "seconds": {
            name: {
                "load": round(times.load, 4),
                "whole": spread(times.whole),
                "stages": {stage: spread(each) for stage, each in times.stages.items()},
                "passes": times.passes,
            }
            for name, times in result.times.items()
        },
    }


def stages_table(result: StagesResult) -> Group:
    """Medians and shares by stage, and how much faster the first pipeline is."""
    machine = result.machine
    where = machine.get("device_name") or machine["processor"]
    table = Table(
        title=Text(
            f"{where}, threads: {machine['threads']}; {result.picture}, {result.sampling}; seconds,"
            f" median of {result.rounds} [lowest, highest], {result.clock}"
        ),
        title_justify="left",
    )
    table.add_column("stage", no_wrap=True)
    for name in result.times:
        table.add_column(name, justify="right", no_wrap=True)
    for stage in STAGES:
        shares = (
            (times.stages[stage].median, times.whole.median) for times in result.times.values()
        )
        table.add_row(stage, *(f"{own:.3f}, {own / whole:.0%}" for own, whole in shares))
    wholes = [times.whole for times in result.times.values()]
    cells = [f"{each.median:.3f} [{each.lowest:.3f}, {each.highest:.3f}]" for each in wholes]
    table.add_row("whole", *cells)
    first = next(iter(result.times.values()))
    notes = [
        f"the network is called {first.passes} times; loading, once, is not in the whole: "
        + ", ".join(f"{name} {times.load:.1f} s" for name, times in result.times.items())
    ]
    for name, times in list(result.times.items())[1:]:
        network = times.stages[NETWORK].median / first.stages[NETWORK].median
        notes.append(
            f"{next(iter(result.times))} is {times.whole.median / first.whole.median:.2f} times as"
            f" fast as {name}, the network alone {network:.2f}"
        )
    return Group(table, *map(Text, notes))
