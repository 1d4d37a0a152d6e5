"""What an evaluation found: one plain structure that table, CSV and ``--json`` are made from.

Methods are compared on equal sets: an image that any method failed on counts for none, and a
metric is averaged over the images where it has a value for every method.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.evaluation.datasets import DataSet, Pair
from runtime.evaluation.evaluate import Entry, Key
from runtime.evaluation.methods import Method, program_version
from runtime.evaluation.metrics import MetricSet, describe, versions
from runtime.evaluation.statistics import (
    CONFIDENCE,
    RESAMPLES,
    SEED,
    Interval,
    mean_interval,
)

CSV_COLUMNS = ("dataset", "image", "method", "metric", "value", "counted", "problem")


@dataclass(frozen=True)
class SetSummary:
    """One data set's table.

    Attributes:
        dataset: what was measured on.
        counted: names of the images that every method has a picture of.
        means: method -> metric -> mean, for metrics that have one.
    """

    dataset: DataSet
    counted: tuple[str, ...]
    means: dict[str, dict[str, Interval]]

    @property
    def left_out(self) -> list[str]:
        """Names of the images that some method failed on."""
        counted = set(self.counted)
        return [pair.name for pair in self.dataset.pairs if pair.name not in counted]


@dataclass(frozen=True)
class Summary:
    """All of it.

    Attributes:
        methods: the rows.
        metrics: the columns, and what could not be one.
        sets: one for each data set.
        entries: every picture.
    """

    methods: Sequence[Method]
    metrics: MetricSet
    sets: tuple[SetSummary, ...]
    entries: Mapping[Key, Entry]

    @property
    def failures(self) -> list[tuple[Key, str]]:
        """Every picture that could not be made or judged, and why."""
        return [(key, entry.error) for key, entry in self.entries.items() if entry.error]


def summarize(
    datasets: Sequence[DataSet],
    methods: Sequence[Method],
    metrics: MetricSet,
    entries: Mapping[Key, Entry],
) -> Summary:
    """Average over images."""
    sets = []
    for dataset in datasets:
        names = [pair.name for pair in dataset.pairs]
        rows = {
            name: [entries[dataset.name, name, method.name] for method in methods] for name in names
        }
        counted = tuple(name for name in names if not any(entry.error for entry in rows[name]))
        means: dict[str, dict[str, Interval]] = {method.name: {} for method in methods}
        for metric in metrics.metrics:
            complete = [
                name for name in counted if all(metric.name in entry.values for entry in rows[name])
            ]
            if not complete:
                continue
            for column, method in enumerate(methods):
                values = [rows[name][column].values[metric.name] for name in complete]
                means[method.name][metric.name] = mean_interval(values)
        sets.append(SetSummary(dataset, counted, means))
    return Summary(methods, metrics, tuple(sets), entries)


def to_json(summary: Summary, *, pictures_kept: bool) -> dict[str, Any]:
    """Everything, for ``--json``."""
    return {
        "datasets": [
            {
                "name": one.dataset.name,
                "folder": str(one.dataset.folder),
                "truth": None
                if one.dataset.truth_folder is None
                else str(one.dataset.truth_folder),
                "images": len(one.dataset.pairs),
                "counted": list(one.counted),
                "left_out": one.left_out,
                "unused_truths": one.dataset.unused_truths,
                "means": {
                    method: {metric: _mean(found) for metric, found in means.items()}
                    for method, means in one.means.items()
                },
                "pictures": [
                    _picture(summary, one, image, method, kept=pictures_kept)
                    for image in one.dataset.pairs
                    for method in summary.methods
                ],
            }
            for one in summary.sets
        ],
        "methods": [
            {"name": method.name, "label": method.label, **method.identity}
            for method in summary.methods
        ],
        "metrics": [describe(metric) for metric in summary.metrics.metrics],
        "unavailable": summary.metrics.unavailable,
        "bootstrap": {"level": CONFIDENCE, "resamples": RESAMPLES, "seed": SEED},
        "versions": {"qdit4sr": program_version(), **versions()},
    }


def _mean(found: Interval) -> dict[str, Any]:
    return {"value": found.mean, "low": found.low, "high": found.high, "images": found.images}


def _picture(
    summary: Summary, one: SetSummary, pair: Pair, method: Method, *, kept: bool
) -> dict[str, Any]:
    entry = summary.entries[one.dataset.name, pair.name, method.name]
    return {
        "image": pair.name,
        "method": method.name,
        "input": str(pair.low),
        "truth": None if pair.truth is None else str(pair.truth),
        "picture": str(entry.picture) if kept or method.ready is not None else None,
        "reused": entry.reused,
        "seconds": entry.seconds,
        "counted": pair.name in one.counted,
        "values": entry.values,
        "problems": entry.problems,
        "error": entry.error or None,
    }


def to_csv(summary: Summary) -> str:
    """One line for each image, method and metric; empty values have a problem beside them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for one in summary.sets:
        counted = set(one.counted)
        for pair in one.dataset.pairs:
            for method in summary.methods:
                entry = summary.entries[one.dataset.name, pair.name, method.name]
                for metric in summary.metrics.metrics:
                    if metric.needs_truth and pair.truth is None:
                        continue
                    value = entry.values.get(metric.name)
                    writer.writerow(
                        [
                            one.dataset.name,
                            pair.name,
                            method.name,
                            metric.name,
                            "" if value is None else repr(value),
                            "yes" if pair.name in counted else "no",
                            entry.error or entry.problems.get(metric.name, ""),
                        ]
                    )
    return text.getvalue()
