"""Scores as tables and JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.demo_quality.flaws import flat_fields
from benchmarks.demo_quality.metrics import (
    ALONE,
    WITH_TRUTH,
    Column,
    Scores,
    octave_share,
    octave_share_median,
)
from runtime.evaluation.statistics import Interval, mean_interval

MethodScores = Mapping[str, Scores]
"""Scores of one method by crop."""
PAIRED = ("psnr_db", "fsim", "ciede2000")


def means(scores: MethodScores, names: Sequence[str]) -> dict[str, Interval]:
    """Mean over crops of each metric, with its bootstrap interval."""
    return {name: mean_interval([values[name] for values in scores.values()]) for name in names}


def difference(first: MethodScores, second: MethodScores, name: str) -> Interval:
    """Mean of the differences crop by crop, ``first`` less ``second``."""
    return mean_interval([first[crop][name] - second[crop][name] for crop in first])


def quality_table(scores: Mapping[str, MethodScores]) -> str:
    """Method by method, every metric; the best value of a column in bold."""
    columns = {**WITH_TRUTH, **ALONE}
    table = {label: means(of, list(columns)) for label, of in scores.items()}
    best = {name: _best(table, name, column) for name, column in columns.items()}
    headings = [column.heading for column in columns.values()]
    headings.append("upper octave's power, of the truth's (median crop)")
    lines = ["| | " + " | ".join(headings) + " |", "|" + "---|" * (len(headings) + 1)]
    for label, of in scores.items():
        cells = []
        for name, column in columns.items():
            cell = f"{table[label][name].mean:.{column.digits}f}"
            cells.append(f"**{cell}**" if cell == best[name] else cell)
        cells.append(f"{octave_share(of):.2f} ({octave_share_median(of):.2f})")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _best(table: Mapping[str, Mapping[str, Interval]], name: str, column: Column) -> str:
    choose = max if column.better == "higher" else min
    return f"{choose(row[name].mean for row in table.values()):.{column.digits}f}"


def difference_table(scores: Mapping[str, MethodScores], reference: str) -> str:
    """Differences to one method crop by crop, with their intervals."""
    names = {name: WITH_TRUTH[name] for name in PAIRED}
    lines = [
        f"| minus {reference} | " + " | ".join(c.heading for c in names.values()) + " |",
        "|" + "---|" * (len(names) + 1),
    ]
    for label, of in scores.items():
        if label == reference:
            continue
        cells = []
        for name, column in names.items():
            found = difference(of, scores[reference], name)
            text = f"{found.mean:+.{column.digits}f} [{found.low:+.{column.digits}f},"
            text += f" {found.high:+.{column.digits}f}]"
            cells.append(f"**{text}**" if found.excludes_zero else text)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def pack_table(psnrs: Mapping[str, Sequence[float]]) -> str:
    """How far packs are from the unquantized network's pictures, from the same noise."""
    lines = ["| | PSNR to full precision, dB |", "|---|---|"]
    for label, of_crops in psnrs.items():
        lines.append(f"| {label} | {_with_interval(mean_interval(of_crops), 2, sign=False)} |")
    return "\n".join(lines)


def flaw_table(scores: Mapping[str, MethodScores], seams: Mapping[str, Sequence[float]]) -> str:
    """Flat fields, lines at the patch's period, images on the grid, edges, seams, colours."""
    in_db = ["peak_8px_db", "beside_8px_db", "peak_4px_db", "grid_images_db", "ragged_edges_db"]
    headings = (
        "deviation in flat fields, of 255",
        "of the truth's",
        "fields above 1.5 times",
        "line at 8 px, dB",
        "beside it",
        "line at 4 px, dB",
        "grid images, dB",
        "ragged edges, dB",
        "jump at tile borders",
        "colour drift",
    )
    lines = ["| | " + " | ".join(headings) + " |", "|" + "---|" * (len(headings) + 1)]
    for label, of in scores.items():
        flat = flat_fields(of)
        found = means(of, [*in_db, "colour_drift"])
        cells = [
            f"{flat.deviation:.2f}",
            f"{flat.deviation / flat.truth_deviation:.2f}",
            f"{flat.rough:.0%}",
            *(_with_interval(found[name], 1) for name in in_db),
            _with_interval(mean_interval(seams[label]), 2, sign=False) if label in seams else "",
            f"{found['colour_drift'].mean:.2f}",
        ]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _with_interval(found: Interval, digits: int, *, sign: bool = True) -> str:
    style = f"{'+' if sign else ''}.{digits}f"
    return f"{found.mean:{style}} [{found.low:{style}}, {found.high:{style}}]"


def to_json(
    scores: Mapping[str, MethodScores],
    seams: Mapping[str, Sequence[float]],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything, crop by crop."""
    found: dict[str, Any] = dict(facts)
    found["interval"] = ["mean", "low", "high"]
    found["methods"] = {
        label: {
            "means": {n: _rounded(i) for n, i in means(of, [*WITH_TRUTH, *ALONE]).items()},
            "upper_octave_share": round(octave_share(of), 4),
            "upper_octave_share_median": round(octave_share_median(of), 4),
            "flat_fields": asdict(flat_fields(of)),
            "seams": [round(ratio, 4) for ratio in seams.get(label, [])],
            "crops": {crop: _short(values) for crop, values in of.items()},
        }
        for label, of in scores.items()
    }
    return found


def _rounded(found: Interval) -> list[float]:
    return [round(value, 5) for value in (found.mean, found.low, found.high)]


def _short(values: Scores) -> Scores:
    """Four significant digits."""
    return {
        name: float(np.format_float_positional(v, 4, fractional=False, trim="-"))
        for name, v in values.items()
    }
