"""The result as JSON and as tables."""

from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from runtime.bench.candidates import BASELINE
from runtime.bench.layers import LayerResult
from runtime.bench.parts import PartTimes
from runtime.bench.run import BenchResult, BlockResult, MemoryUse, SizeResult
from runtime.bench.saved_work import SavedWork
from runtime.bench.timing import Spread

_MIB = 2**20


def to_json(result: BenchResult) -> dict[str, Any]:
    """One JSON object: milliseconds, bytes, and why candidates are missing."""
    settings, workload = result.settings, result.settings.workload
    return {
        "machine": result.machine,
        "settings": {
            "bits": str(workload.bits),
            "ranks": str(workload.ranks),
            "batch": workload.batch,
            "text_tokens": workload.text_tokens,
            "rounds": settings.rounds,
            "clock": _clock(result),
            "compile": settings.compiling,
        },
        "candidates": {
            each.name: {
                "family": each.family,
                "modes": each.mode_names,
                "version": each.peer.version if each.peer else None,
                "unavailable": each.missing,
            }
            for each in result.candidates
        },
        "sizes": [_size_json(size) for size in result.sizes],
    }


def render(result: BenchResult) -> Group:
    """All tables, and below them what their numbers mean."""
    parts: list[Table | Text] = [Text(_heading(result)), Text("")]
    for size in result.sizes:
        parts += [_block_table(result, size), _ratio_table(result, size)]
        parts += [*map(Text, _block_notes(size)), Text("")]
        clocked = [(block, block.parts) for block in size.blocks if block.parts is not None]
        for block, times in clocked:
            parts += [Text(_parts_title(block)), _parts_table(times)]
        parts += [*map(Text, _rate_lines(clocked, size)), Text("")]
        if size.layers:
            parts += [_layer_table(result, size), Text("")]
        parts += [*map(Text, _saved_lines(size.saved)), Text("")]
    return Group(*parts)


def _clock(result: BenchResult) -> str:
    if result.settings.device.type == "cuda":
        return "events on the device"
    return "processor time" if result.settings.processor_time else "wall"


def _times_faster(size: SizeResult) -> dict[str, dict[str, float]]:
    """Step time of every other candidate over that of a candidate."""
    steps = size.step_seconds
    return {
        name: {other: theirs / own for other, theirs in steps.items() if other != name}
        for name, own in steps.items()
    }


def _spread_json(spread: Spread) -> dict[str, float]:
    return {f"{name}_ms": round(1e3 * seconds, 4) for name, seconds in asdict(spread).items()}


def _size_json(size: SizeResult) -> dict[str, Any]:
    return {
        "size_px": size.size_px,
        "image_tokens": size.streams.image_tokens,
        "control_tokens": size.streams.image_tokens,
        "blocks": [_block_json(block) for block in size.blocks],
        "step_ms": {name: round(1e3 * step, 3) for name, step in size.step_seconds.items()},
        "times_faster": {
            name: {other: round(ratio, 3) for other, ratio in others.items()}
            for name, others in _times_faster(size).items()
        },
        "layers": [_layer_json(layer) for layer in size.layers],
        "best_product_gops": {name: round(rate, 1) for name, rate in size.rates.items()},
        "saved_work": asdict(size.saved),
    }


def _block_json(block: BlockResult) -> dict[str, Any]:
    parts = None
    if block.parts is not None:
        parts = {
            "whole_ms": round(1e3 * block.parts.whole, 3),
            "parts_ms": {part: round(1e3 * s, 3) for part, s in block.parts.parts.items()},
            "integer_gops": _rounded(block.parts.integer_gops),
            "missing": block.parts.missing,
        }
    return {
        "kind": block.kind.label,
        "count": block.kind.count,
        "multiply_accumulates": block.products,
        "times": {name: _spread_json(spread) for name, spread in block.times.items()},
        "unavailable": block.unavailable,
        "memory": {
            name: {
                "layer_bytes": use.layers,
                "bits_per_weight": round(8 * use.layers / use.weights, 3),
                "share_of_bfloat16": _rounded(_share(block, use), 4),
                "peak_bytes": use.peak,
            }
            for name, use in block.memory.items()
        },
        "parts": parts,
    }


def _layer_json(layer: LayerResult) -> dict[str, Any]:
    times = {}
    for name, time in layer.times.items():
        preparation = None if time.preparation is None else _spread_json(time.preparation)
        times[name] = {
            **_spread_json(time.whole),
            "gops": round(layer.shape.operations / time.whole.median / 1e9, 1),
            "preparation": preparation,
        }
    return {
        **asdict(layer.shape),
        "calls": layer.calls,
        "times": times,
        "unavailable": layer.unavailable,
    }


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)


def _share(block: BlockResult, use: MemoryUse) -> float | None:
    whole = block.memory.get(BASELINE)
    return None if whole is None else use.layers / whole.layers


def _heading(result: BenchResult) -> str:
    workload, machine = result.settings.workload, result.machine
    where = str(machine.get("device_name") or machine["processor"])
    return (
        f"{where}, threads: {machine['threads']}, torch {machine['torch']}; {workload.bits}, ranks"
        f" {workload.ranks}, batch {workload.batch}"
    )


def _block_table(result: BenchResult, size: SizeResult) -> Table:
    tokens, rounds = size.streams.image_tokens, result.settings.rounds
    title = (
        f"{size.size_px}x{size.size_px}: {tokens} image, {tokens} control,"
        f" {size.streams.text_tokens} text tokens, batch {size.streams.batch}; ms, median of"
        f" {rounds} [lowest, highest], {_clock(result)}"
    )
    table = Table(title=Text(title), title_justify="left")
    table.add_column("candidate", no_wrap=True)
    for block in size.blocks:
        table.add_column(f"block with {block.kind.label}", justify="right", no_wrap=True)
    table.add_column("whole step", justify="right", no_wrap=True)
    table.add_column("linear layers of both, MiB", justify="right")
    table.add_column("of bfloat16's", justify="right")
    has_peak = any(use.peak is not None for block in size.blocks for use in block.memory.values())
    if has_peak:
        table.add_column("peak of a pass, MiB", justify="right")
    steps = size.step_seconds
    for candidate in result.candidates:
        for name in candidate.mode_names:
            cells = [_time_cell(block, name) for block in size.blocks]
            cells.append(f"{1e3 * steps[name]:.1f}" if name in steps else "-")
            cells += _memory_cells(size, candidate.name if name in steps else "", peak=has_peak)
            table.add_row(Text(name), *cells)
    return table


def _time_cell(block: BlockResult, name: str) -> str:
    if name not in block.times:
        return "unavailable"
    spread = block.times[name]
    return f"{1e3 * spread.median:.2f} [{1e3 * spread.lowest:.2f}, {1e3 * spread.highest:.2f}]"


def _memory_cells(size: SizeResult, name: str, *, peak: bool) -> list[str]:
    uses = [block.memory[name] for block in size.blocks if name in block.memory]
    if len(uses) < len(size.blocks):
        return ["-"] * (3 if peak else 2)
    own = sum(use.layers for use in uses)
    cells = [f"{own / _MIB:.1f}", "-"]
    whole = [block.memory[BASELINE].layers for block in size.blocks if BASELINE in block.memory]
    if len(whole) == len(uses):
        cells[1] = f"{own / sum(whole):.3f}"
    if peak:
        peaks = [use.peak for use in uses if use.peak is not None]
        cells.append(f"{max(peaks) / _MIB:.1f}" if peaks else "-")
    return cells


def _ratio_table(result: BenchResult, size: SizeResult) -> Table:
    """Rows are the project's backends, columns everyone else."""
    ratios = _times_faster(size)
    families = {
        name: candidate.family for candidate in result.candidates for name in candidate.mode_names
    }
    ours = [name for name in ratios if families[name] == "backend"]
    others = [name for name in ratios if families[name] != "backend"]
    table = Table(title="times faster than ..., whole step", title_justify="left")
    table.add_column("candidate", no_wrap=True)
    for other in others:
        table.add_column(other, justify="right")
    for name in ours:
        table.add_row(Text(name), *(f"{ratios[name][other]:.2f}" for other in others))
    return table


def _block_notes(size: SizeResult) -> list[str]:
    terms = " + ".join(
        f"{block.kind.count} x median of {block.kind.label}" for block in size.blocks
    )
    notes = [
        f"whole step = {terms}; embeddings, final layers and VAE are not in it; the last block,"
        " which computes less, counts as a full one"
    ]
    by_reason: dict[str, list[str]] = {}
    for name, why in size.unavailable.items():
        by_reason.setdefault(why, []).append(name)
    notes += [f"unavailable: {'; '.join(names)}: {why}" for why, names in by_reason.items()]
    return notes


def _parts_title(block: BlockResult) -> str:
    return f"where the cpu backend's time goes: block with {block.kind.label}"


def _parts_table(parts: PartTimes) -> Table:
    table = Table()
    table.add_column("part", no_wrap=True)
    table.add_column("ms", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    for part, seconds in parts.parts.items():
        table.add_row(part, f"{1e3 * seconds:.2f}", f"{seconds / parts.whole:.1%}")
    table.add_row("whole", f"{1e3 * parts.whole:.2f}", "")
    return table


def _rate_lines(clocked: list[tuple[BlockResult, PartTimes]], size: SizeResult) -> list[str]:
    lines = [
        f"integer products of the block with {block.kind.label}: {parts.integer_gops:.0f} GOPS"
        for block, parts in clocked
        if parts.integer_gops is not None
    ]
    if size.rates:
        rates = ", ".join(f"{name} {rate:.0f}" for name, rate in size.rates.items())
        lines.append(f"best that single products reach here, GOPS: {rates}")
    missing = sorted({name for _, parts in clocked for name in parts.missing})
    if missing:
        lines.append(f"without a clock of their own, as they do not exist: {', '.join(missing)}")
    return lines


def _layer_table(result: BenchResult, size: SizeResult) -> Table:
    table = Table(
        title="single layers: ms, of that the input's preparation; billions of operations per"
        " second",
        title_justify="left",
    )
    table.add_column("tokens x in -> out", no_wrap=True)
    table.add_column("calls of a step", justify="right")
    names = [
        each.name
        for each in result.candidates
        if any(each.name in layer.times for layer in size.layers)
    ]
    for name in names:
        table.add_column(name, justify="right")
    for layer in size.layers:
        shape = layer.shape
        table.add_row(
            f"{shape.rows} x {shape.in_features} -> {shape.out_features}",
            str(layer.calls),
            *(_layer_cell(layer, name) for name in names),
        )
    return table


def _layer_cell(layer: LayerResult, name: str) -> str:
    if name not in layer.times:
        return "unavailable"
    time = layer.times[name]
    text = f"{1e3 * time.whole.median:.3f}"
    if time.preparation is not None:
        text += f" ({1e3 * time.preparation.median:.3f})"
    return f"{text}; {layer.shape.operations / time.whole.median / 1e9:.0f}"


def _saved_lines(saved: SavedWork) -> list[str]:
    lost = saved.published - saved.computed
    return [
        f"linear layers of a pass: {saved.computed / 1e9:.1f} G multiply-accumulates computed,"
        f" {saved.published / 1e9:.1f} G in the published code ({lost / saved.published:.1%} less)",
        *(f"  left out: {why}: {count / 1e9:.1f} G" for why, count in saved.dropped.items()),
        f"  not loaded: {saved.unread_layers} layers with {saved.unread_weights / 1e6:.1f} M"
        " weights that no pass reads",
        f"inputs prepared: {saved.preparations} for {saved.calls} layers;"
        f" {saved.shared_values / 1e6:.1f} M numbers, {saved.separate_values / 1e6:.1f} M if each"
        " layer prepared its own",
    ]
