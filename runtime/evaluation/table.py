"""The table of ``qrun eval``: rows are methods, columns metrics, one table for each data set."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from runtime.evaluation.statistics import Interval
from runtime.evaluation.summary import SetSummary, Summary

_SHOWN = 5


def render_summary(summary: Summary) -> Group:
    """All tables, and below each what its numbers leave out."""
    parts: list[Table | Text] = []
    for one in summary.sets:
        parts += [_table(summary, one), *map(Text, _notes(summary, one)), Text("")]
    unavailable = [
        Text(f"{name}: unavailable: {reason}")
        for name, reason in summary.metrics.unavailable.items()
    ]
    return Group(*parts, *unavailable)


def _table(summary: Summary, one: SetSummary) -> Table:
    images = len(one.counted)
    table = Table(
        title=f"{one.dataset.name}: mean over {images} {'image' if images == 1 else 'images'}",
        title_justify="left",
    )
    table.add_column("method", no_wrap=True)
    for metric in summary.metrics.metrics:
        arrow = "↓" if metric.lower_better else "↑"
        table.add_column(f"{metric.label} {arrow}", justify="right", no_wrap=True)
    for method in summary.methods:
        means = one.means[method.name]
        cells = [_cell(means.get(metric.name)) for metric in summary.metrics.metrics]
        table.add_row(Text(method.label), *cells)
    return table


def _cell(found: Interval | None) -> str:
    if found is None:
        return "-"
    return f"{found.mean:.2f}" if abs(found.mean) >= 10 else f"{found.mean:.4f}"


def _notes(summary: Summary, one: SetSummary) -> list[str]:
    notes = []
    if one.left_out:
        total = len(one.dataset.pairs)
        names = ", ".join(one.left_out[:_SHOWN])
        more = f" and {len(one.left_out) - _SHOWN} more" if len(one.left_out) > _SHOWN else ""
        notes.append(
            f"{len(one.left_out)} of {total} images left out of every mean, because a method"
            f" failed on them or their truth cannot be read: {names}{more}"
        )
    for metric in summary.metrics.metrics:
        found = [means[metric.name] for means in one.means.values() if metric.name in means]
        if found and found[0].images < len(one.counted):
            notes.append(f"{metric.name}: over {found[0].images} images that it has values for")
    if one.dataset.truth_folder is None and any(m.needs_truth for m in summary.metrics.metrics):
        notes.append("no truth: metrics that compare with one are left out")
    if one.dataset.unused_truths:
        notes.append(f"{one.dataset.unused_truths} truths belong to no image and are not used")
    return notes
