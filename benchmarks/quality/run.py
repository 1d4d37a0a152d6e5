"""One run of the comparison, from the command line's arguments to printed and written results."""

import argparse
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.quality import layers as layer_evidence
from benchmarks.quality import plots, report
from benchmarks.quality.compare import Comparison, code_fingerprint, to_stderr
from benchmarks.quality.draws import draws_of, merge_draws
from benchmarks.quality.measure import Bench, Sampling, Values, make_bench, measure_baselines
from benchmarks.quality.packs import PackMaker
from benchmarks.quality.report import Measured
from benchmarks.quality.rows import Row
from benchmarks.quality.store import RowStore, key_of
from planner.build.layers import weight_statistics
from schemas.json_io import format_json

CROP_PX = 128
"""What the bundled model sees at once: its input of 32 px, enlarged, fills one tile."""


def run(arguments: argparse.Namespace, rows: Sequence[Row], everything: Sequence[Row]) -> None:
    """Measure ``rows``, print them and write what was asked for.

    Args:
        arguments: of the command line.
        rows: what to measure.
        everything: what to choose from for the comparison of layers.

    Raises:
        QPackError: the model is damaged.
        ValueError: nothing is left to do, or there are not as many crops.
    """
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if not rows:
        raise ValueError(f"no row's name has {arguments.rows!r} in it; --list prints them")
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    sampling = Sampling(
        model=arguments.model,
        crops=arguments.crops,
        crop_px=CROP_PX,
        seeds=arguments.seeds,
        steps=arguments.steps,
        guidance=arguments.guidance,
        pictures=not arguments.no_pictures,
    )
    device = torch.device(arguments.device)
    maker = PackMaker(
        sampling.model,
        work,
        steps=sampling.steps,
        guidance=sampling.guidance,
        device=device,
    )
    store = RowStore(work / "rows")
    bench = make_bench(sampling, work, _reference_progress, device)
    comparison = Comparison(bench, maker, store, to_stderr)
    measure = comparison.known if arguments.report else comparison.run
    draws = {row.full_name: draws_of(row, arguments.draws) for row in rows}
    contents = merge_draws(draws, measure([draw for row in rows for draw in draws[row.full_name]]))
    baselines = _baselines(bench, store)
    measured = report.analyse(rows, contents, baselines)
    if len({entry.content["code"] for entry in measured}) > 1:
        to_stderr(
            "warning: these rows were measured by different versions of the code; remove"
            f" {store.folder} to measure all of them with this one ({code_fingerprint()})"
        )
    print(_summary(measured))
    if arguments.out:
        _write(arguments, measured, baselines, sampling, maker)
    if arguments.layers:
        chosen = [
            row for row in everything if row.recipe and re.search(arguments.layers, row.full_name)
        ]
        _compare_layers(arguments, bench, maker, chosen)


def _reference_progress(done: int, total: int) -> None:
    if done % 10 == 0 or done == total:
        to_stderr(f"unquantized network: {done} of {total} pictures")


def _baselines(bench: Bench, store: RowStore) -> dict[str, Values]:
    key = key_of({"baselines": bench.sampling.key_parts()})
    known = store.load("baselines", key)
    if known is None:
        known = store.save("baselines", key, {"values": measure_baselines(bench)})
    values: dict[str, Values] = known["values"]
    return values


def _summary(measured: Sequence[Measured]) -> str:
    lines = [f"{'row':42} {'bits':>5}  latent error, dB       minus quarot"]
    for entry in measured:
        found = entry.metrics["latent_db"]
        shown = f"{found.mean:6.2f} [{found.low:.2f}, {found.high:.2f}]"
        line = f"{entry.row.full_name:42} {entry.content['stored_bits']:5.2f}  {shown:22}"
        if "quarot" in entry.differences:
            difference = entry.differences["quarot"]["latent_db"]
            line += f" {difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]"
        if entry.content.get("same_as"):
            line += f"  = {entry.content['same_as']}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def command_line(arguments: argparse.Namespace, module: str = "benchmarks.quality") -> str:
    """The command that gives these results, without what only says where and how it runs."""
    left: list[str] = []
    words = iter(arguments.given)
    for word in words:
        name = word.partition("=")[0]
        if name in ("--work", "--threads") and "=" not in word:
            next(words, None)
        elif name not in ("--work", "--threads", "--report"):
            left.append(word)
    return shlex.join(["python", "-m", module, *left])


def _write(
    arguments: argparse.Namespace,
    measured: Sequence[Measured],
    baselines: dict[str, Values],
    sampling: Sampling,
    maker: PackMaker,
) -> None:
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    facts = sampling.key_parts()
    (out / "quality.json").write_text(format_json(report.to_json(measured, baselines, facts)))
    drawn = _plots(arguments, measured, sampling, maker)
    text = report.to_markdown(
        measured,
        baselines,
        facts,
        network=arguments.model.name,
        ranks=arguments.ranks,
        second=arguments.second_ranks,
        command=command_line(arguments),
        plots=drawn,
        notes=report.read_notes(out),
    )
    (out / "quality.md").write_text(text)


def _plots(
    arguments: argparse.Namespace,
    measured: Sequence[Measured],
    sampling: Sampling,
    maker: PackMaker,
) -> list[tuple[str, str]]:
    out: Path = arguments.out
    targets = arguments.targets.split(",")
    drawn = [plots.error_by_recipe(measured, targets, out), plots.pareto(measured, out)]
    full = next((e for e in measured if e.row.full_name == f"{targets[0]}/q-dit4sr"), None)
    if full is not None:
        drawn.append(plots.bit_grid(full.content["layers"], targets[0], out))
        settings = maker.settings(full.row)
        statistics = weight_statistics(maker.checkpoint, settings)
        drawn.append(plots.weight_variance(statistics, out))
    # The references are of no use here: no crop but the calibration's is sampled.
    bench = make_bench(replace(sampling, crops=1, seeds=1, pictures=False), arguments.work, _quiet)
    evidence = layer_evidence.gather(bench, maker, [])
    drawn.append(plots.activation_variance(evidence.mean_squares, out))
    return drawn


def _quiet(done: int, total: int) -> None:
    """Report no progress."""


def _compare_layers(
    arguments: argparse.Namespace, bench: Bench, maker: PackMaker, rows: Sequence[Row]
) -> None:
    if not rows:
        raise ValueError(f"no recipe's name has {arguments.layers!r} in it")
    to_stderr(f"comparing the layers of {len(rows)} rows")
    evidence = layer_evidence.gather(bench, maker, rows)
    labels = {row.full_name: row.label for row in rows}
    command = command_line(arguments)
    if arguments.out:
        layer_evidence.write(evidence, labels, command, arguments.out)
    else:
        print(layer_evidence.to_markdown(evidence, labels, command))
