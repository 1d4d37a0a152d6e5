"""One run of the paper's tables and figures, from the command line's arguments to a page."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.learned.report import file_name, read_rows
from benchmarks.paper import components, document, plots
from benchmarks.paper.__main__ import CROP_PX, REMOVED
from benchmarks.paper.mixed_precision import PaperPackMaker
from benchmarks.paper.tables import PaperTable, tables
from benchmarks.quality.compare import Comparison, to_stderr
from benchmarks.quality.measure import Bench, Sampling, make_bench
from benchmarks.quality.report import analyse, read_notes
from benchmarks.quality.rows import Row
from benchmarks.quality.run import command_line
from benchmarks.quality.store import RowStore

FACTORS = {"global": "SVD-G", "hsvd": "H-SVD"}
"""Rows of Table 4 whose errors Fig. 4 compares."""


def run(arguments: argparse.Namespace, chosen: Sequence[PaperTable]) -> str:
    """Measure the tables' rows, and the figures.

    Args:
        arguments: of the command line.
        chosen: the tables.

    Returns:
        The page.

    Raises:
        QPackError: the model is damaged.
        ValueError: there are not as many crops.
    """
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
    sampling = Sampling(
        model=arguments.model,
        crops=arguments.crops,
        crop_px=CROP_PX,
        seeds=arguments.seeds,
        steps=arguments.steps,
        guidance=1.0,
        pictures=not arguments.no_pictures,
    )
    bench = make_bench(sampling, work, lambda _done, _total: None)
    maker = PaperPackMaker(
        bench, arguments.limit, arguments.model, work, steps=sampling.steps, guidance=1.0
    )
    comparison = Comparison(bench, maker, RowStore(work / "rows"), to_stderr)
    rows = _distinct(chosen, arguments.limit)
    measured = {entry.row.full_name: entry for entry in analyse(rows, comparison.run(rows), {})}
    command = command_line(arguments, "benchmarks.paper")
    learned = read_rows(arguments.learned / file_name(arguments.model), sampling.key_parts())
    notes = None if arguments.out is None else read_notes(arguments.out, document.NOTES)
    lines = document.introduction(arguments.model.name, command, sampling.key_parts(), notes)
    for table in chosen:
        lines += document.table(table, measured, learned)
    if not arguments.no_figures:
        lines += _figures(arguments, bench, maker)
    return "\n".join(lines)


def _distinct(chosen: Sequence[PaperTable], limit: int | None) -> list[Row]:
    """Rows of all tables, each once; of every table the first ``limit``."""
    found: dict[str, Row] = {}
    for table in chosen:
        for row in table.rows if limit is None else table.rows[:limit]:
            found.setdefault(row.full_name, row)
    return list(found.values())


def _figures(arguments: argparse.Namespace, bench: Bench, maker: PaperPackMaker) -> list[str]:
    network = bench.pipeline.network
    found = components.gather(bench, components.output_layers(network))
    removals = components.remove(bench, found, REMOVED[: arguments.limit])
    layer = list(found)[len(found) // 2]  # of a block in the middle
    weight = network.get_parameter(f"{layer}.weight")
    decoded = {}
    by_name = {row.name: row for table in tables() if table.number == 4 for row in table.rows}
    for name, label in FACTORS.items():
        with maker.pack(by_name[name]) as pack:
            decoded[label] = pack.layer(layer).decode()
    errors = components.error_by_component(found[layer], weight, decoded)
    if arguments.out is not None:
        plots.spectrum(found, arguments.out)
        plots.removal(removals, arguments.out)
        plots.components(errors, arguments.out)
    return document.figures(layer, found, removals, errors, drawn=arguments.out is not None)
