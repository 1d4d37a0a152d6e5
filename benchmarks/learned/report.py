"""Measured rows as a table and as a file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.intervals import per_image
from benchmarks.quality.store import Content
from runtime.evaluation.statistics import Interval, mean_interval
from schemas.json_io import format_json

COLUMNS = {
    "latent_db": "latent error, dB",
    "octave_coarse_db": "coarse",
    "octave_middle_db": "middle",
    "octave_fine_db": "fine",
    "fsim_change": "FSIM less the unquantized",
}


def file_name(model: Path) -> str:
    """Name of the results' file."""
    return "learned.json" if model.name.endswith("-onestep") else f"learned-{model.name}.json"


def to_json(contents: Sequence[Content], sampling: Mapping[str, Any]) -> str:
    """The results, with all that they depend on beside the rows."""
    return format_json({"sampling": dict(sampling), "rows": list(contents)})


def read_rows(path: Path, sampling: Mapping[str, Any]) -> list[Content]:
    """Rows of a results' file, of the first seed of learning; none if it was sampled otherwise."""
    if not path.is_file():
        return []
    found = json.loads(path.read_text())
    theirs, ours = (
        {key: value for key, value in parts.items() if key != "pictures"}
        for parts in (found.get("sampling", {}), sampling)
    )
    if theirs != ours:
        return []
    return [content for content in found["rows"] if not content["row"]["seed"]]


def table(contents: Sequence[Content]) -> list[str]:
    """Rows of one target after another, seeds of a method together."""
    shown = {
        metric: heading
        for metric, heading in COLUMNS.items()
        if any(metric in content["values"] for content in contents)
    }
    headings = ["target", "method", *shown.values(), "by seed of learning", "pictures", "minutes"]
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    groups: dict[tuple[str, str], list[Content]] = {}
    for content in contents:
        row = content["row"]
        groups.setdefault((row["target"], row["method"]), []).append(content)
    for (target, method), same in groups.items():
        cells = [target, method]
        for metric in shown:
            cells.append(_interval(same, metric) if metric in same[0]["values"] else "-")
        seeds = (per_image(content["values"]["latent_db"]).mean() for content in same)
        cells.append(", ".join(f"{seed:.2f}" for seed in seeds))
        cells.append(str(same[0].get("images", "-")))
        minutes = sum(content["built_seconds"] for content in same) / len(same) / 60
        # Of a run that was interrupted the last part is known.
        resumed = any(content.get("resumed") for content in same)
        cells.append(f"{'over ' if resumed else ''}{minutes:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _interval(same: Sequence[Content], metric: str) -> str:
    """The mean over images, with its interval; seeds of noise and of learning within an image."""
    images = [
        [value for content in same for value in content["values"][metric][index]]
        for index in range(len(same[0]["values"][metric]))
    ]
    found: Interval = mean_interval(per_image(images))
    digits = "+.4f" if metric == "fsim_change" else ".2f"
    return f"{found.mean:{digits}} [{found.low:{digits}}, {found.high:{digits}}]"
