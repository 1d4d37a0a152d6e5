"""The whole measurement: blocks of both kinds, layers, parts, memory, saved work.

A step of the sampler applies 24 blocks, 13 of one kind and 11 of the other. One block of each kind
is measured; the step is the sum of the medians, each as often as the network has such blocks.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from artifacts.family import Architecture
from runtime.bench.block import BenchBlock
from runtime.bench.candidates import Candidate, all_candidates, attempt
from runtime.bench.counting import count_block
from runtime.bench.layers import LayerResult, layer_shapes, measure_layer
from runtime.bench.machine import machine_facts
from runtime.bench.memory import resident_bytes
from runtime.bench.parts import PartTimes, part_times, product_rates
from runtime.bench.saved_work import SavedWork, saved_work
from runtime.bench.timing import Spread, Timer, Work, interleaved, timer_for
from runtime.bench.workload import Workload
from runtime.network.blocks import BlockKind, Streams
from runtime.network.family import block_family
from runtime.processor import multiplies_bfloat16

_CUDA_CALLS = 10
"""Calls of a single layer per time on CUDA, where one is as short as its launch."""


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        workload: what.
        device: where.
        backends: names of the project's backends to compare; None for all.
        rounds: times per candidate.
        compiling: compare ``torch.compile``.
        peers: compare quantizers of others.
        layers: measure single layers, too.
        processor_time: see `timing.timer_for`.
    """

    workload: Workload
    device: torch.device
    backends: tuple[str, ...] | None = None
    rounds: int = 5
    compiling: bool = True
    peers: bool = True
    layers: bool = True
    processor_time: bool = False


@dataclass(frozen=True)
class BenchListener:
    """Who is told how far it is.

    Attributes:
        say: one line.
        step: rounds done and rounds in all, of what is being measured.
        advance: one block or layer is measured.
    """

    say: Callable[[str], None] = lambda line: None
    step: Callable[[int, int], None] = lambda done, total: None
    advance: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class MemoryUse:
    """Memory of one candidate's block.

    Attributes:
        layers: bytes that its linear layers hold, after a pass.
        weights: how many weights these have.
        peak: bytes that a pass takes beside what lay there before; None but on CUDA.
    """

    layers: int
    weights: int
    peak: int | None


@dataclass
class BlockResult:
    """All candidates on one kind of block.

    Attributes:
        kind: the kind.
        products: multiply-accumulates of its linear layers in a pass.
        times: by name of the candidate in its mode.
        memory: by candidate.
        unavailable: why others have no times.
        parts: where the `cpu` backend's time goes; None where it is not among the candidates.
    """

    kind: BlockKind
    products: int
    times: dict[str, Spread] = field(default_factory=dict)
    memory: dict[str, MemoryUse] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    parts: PartTimes | None = None


@dataclass(frozen=True)
class SizeResult:
    """One size of picture.

    Attributes:
        size_px: its side.
        streams: what it means for a block.
        blocks: of both kinds.
        layers: single layers, where they were asked for.
        saved: what the network does not compute.
        rates: what products reach, on the CPU.
    """

    size_px: int
    streams: Streams
    blocks: list[BlockResult]
    layers: list[LayerResult]
    saved: SavedWork
    rates: dict[str, float]

    @property
    def step_seconds(self) -> dict[str, float]:
        """Seconds of all blocks by candidate: medians, each as often as there are such blocks."""
        common = [
            name
            for name in self.blocks[0].times
            if all(name in block.times for block in self.blocks)
        ]
        return {
            name: sum(block.kind.count * block.times[name].median for block in self.blocks)
            for name in common
        }

    @property
    def unavailable(self) -> dict[str, str]:
        """Why candidates lack times of one kind of block or of both."""
        return {name: why for block in self.blocks for name, why in block.unavailable.items()}


@dataclass(frozen=True)
class BenchResult:
    """Everything that was measured.

    Attributes:
        machine: what it was measured on, by name.
        settings: how.
        candidates: who took part, or could not.
        sizes: one result for each.
    """

    machine: dict[str, object]
    settings: Settings
    candidates: list[Candidate]
    sizes: list[SizeResult]


def _candidate_of_parts() -> str:
    """The candidate whose parts are told: the `cpu` backend as `qrun upscale` would take it."""
    return "cpu bfloat16" if multiplies_bfloat16() else "cpu float32"


def count_steps(settings: Settings, architecture: Architecture) -> int:
    """How many blocks and layers will be measured."""
    kinds = block_family(architecture.family).kinds(architecture.config)
    total = 0
    for size in settings.workload.sizes_px:
        total += len(kinds)
        if settings.layers:
            streams = settings.workload.streams(architecture, size)
            total += len(layer_shapes(architecture, streams, kinds))
    return total


def measure(settings: Settings, architecture: Architecture, listener: BenchListener) -> BenchResult:
    """Measure everything on a network of this configuration."""
    machine = machine_facts(settings.device)
    candidates = all_candidates(
        settings.device,
        backends=settings.backends,
        compiling=settings.compiling,
        peers=settings.peers,
    )
    for candidate in candidates:
        if candidate.missing is not None:
            listener.say(f"unavailable: {candidate.name}: {candidate.missing}")
    timer = timer_for(settings.device, processor_time=settings.processor_time)
    sizes = [
        _measure_size(settings, architecture, size, candidates, timer, listener)
        for size in settings.workload.sizes_px
    ]
    return BenchResult(machine, settings, candidates, sizes)


def _measure_size(
    settings: Settings,
    architecture: Architecture,
    size_px: int,
    candidates: Sequence[Candidate],
    timer: Timer,
    listener: BenchListener,
) -> SizeResult:
    streams = settings.workload.streams(architecture, size_px)
    blocks_of = block_family(architecture.family)
    kinds = blocks_of.kinds(architecture.config)
    blocks = [
        _measure_block(settings, architecture, kind, streams, candidates, timer, listener)
        for kind in kinds
    ]
    layers = []
    if settings.layers:
        for shape, calls in layer_shapes(architecture, streams, kinds).items():
            layers.append(
                measure_layer(
                    shape,
                    calls,
                    candidates,
                    device=settings.device,
                    bits=settings.workload.bits,
                    ranks=settings.workload.ranks,
                    rounds=settings.rounds,
                    timer=timer,
                    calls_each=_CUDA_CALLS if settings.device.type == "cuda" else 1,
                    after_round=lambda done: listener.step(done, settings.rounds),
                )
            )
            listener.advance()
    rates = {}
    if settings.device.type == "cpu":
        width = blocks_of.input_shapes(architecture.config, streams)[0][-1]
        with torch.inference_mode():
            rates = product_rates(
                width,
                streams,
                activation_bits=settings.workload.bits.activation,
                timer=timer,
            )
    saved = saved_work(architecture, streams)
    return SizeResult(size_px, streams, blocks, layers, saved, rates)


def _measure_block(
    settings: Settings,
    architecture: Architecture,
    kind: BlockKind,
    streams: Streams,
    candidates: Sequence[Candidate],
    timer: Timer,
    listener: BenchListener,
) -> BlockResult:
    """Build and warm all candidates of one kind of block, then let them take turns."""
    count = count_block(architecture, kind.index, streams)
    result = BlockResult(kind, count.products)
    works: dict[str, Work] = {}
    for candidate in candidates:
        if candidate.missing is not None:
            result.unavailable |= dict.fromkeys(candidate.mode_names, candidate.missing)
            continue

        def make(candidate: Candidate = candidate) -> BenchBlock:
            workload = settings.workload
            with torch.no_grad():
                return candidate.make_block(
                    architecture, kind, streams, settings.device, workload.bits, workload.ranks
                )

        block = attempt(make)
        if isinstance(block, str):
            result.unavailable |= dict.fromkeys(candidate.mode_names, block)
            listener.say(f"unavailable: {candidate.name}: {block}")
            continue
        found = _warm_works(candidate, block, result, listener, compiling=settings.compiling)
        works |= found
        if found:
            first = next(iter(found.values()))
            result.memory[candidate.name] = _memory(block, first, settings.device)
    with torch.inference_mode():
        result.times = interleaved(
            works,
            rounds=settings.rounds,
            timer=timer,
            after_round=lambda done: listener.step(done, settings.rounds),
        )
        of_parts = _candidate_of_parts()
        if of_parts in works and settings.device.type == "cpu":
            result.parts = part_times(
                works[of_parts],
                rounds=settings.rounds,
                now=time.process_time if settings.processor_time else time.perf_counter,
                products=count.products,
            )
    # Compiled code of one kind is not tried on the next: past a limit torch would stop compiling.
    if settings.compiling:
        torch.compiler.reset()
    listener.advance()
    return result


def _warm_works(
    candidate: Candidate,
    block: BenchBlock,
    result: BlockResult,
    listener: BenchListener,
    *,
    compiling: bool,
) -> dict[str, Work]:
    """The candidate in every mode that works, called once or more."""
    works: dict[str, Work] = {}
    for mode, name in zip(candidate.modes, candidate.mode_names, strict=True):
        if mode.compiled and not compiling:
            result.unavailable[name] = "left out; --compile measures it"
            continue

        def warm(compiled: bool = mode.compiled, graphed: bool = mode.graphed) -> Work:
            with torch.inference_mode():
                return block.work(compiled=compiled, graphed=graphed)

        work = attempt(warm)
        if isinstance(work, str):
            result.unavailable[name] = work
            listener.say(f"unavailable: {name}: {work}")
        else:
            works[name] = work
    return works


def _memory(block: BenchBlock, work: Work, device: torch.device) -> MemoryUse:
    peak = None
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        with torch.inference_mode():
            work()
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device) - before
    return MemoryUse(resident_bytes(block.layers), block.weights, peak)
