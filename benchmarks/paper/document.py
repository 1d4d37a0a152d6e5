"""Tables and figures as a page of docs."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from benchmarks.learned.report import table as learned_table
from benchmarks.paper.components import Outputs, Removal
from benchmarks.paper.plots import FILES, grouped
from benchmarks.paper.tables import MISSING_METRICS, PaperTable
from benchmarks.quality.report import Measured, error_table, picture_table, versions
from benchmarks.quality.spectrum import OCTAVES
from benchmarks.quality.store import Content

NOTES = "paper_notes.md"

CAPTIONS = (
    "Fig. 2, right: energy of the outputs of `ff.net.2` by principal component",
    "Fig. 4: error of the final latent without components of the outputs of `ff.net.2`",
    "Fig. 4: error that H-SVD and SVD-G leave, by component of the unquantized outputs",
)


def introduction(
    network: str, command: str, sampling: Mapping[str, object], notes: str | None = None
) -> list[str]:
    """Heading, command, what was sampled, and notes written by hand."""
    return [
        f"# The paper's Section 4 on {network}",
        "",
        f"Measured on {os.cpu_count()} CPU cores ({platform.machine()}), torch"
        f" {versions()['torch']}, float32, reference backend:",
        "",
        "```",
        command,
        "```",
        "",
        f"{sampling['crops']} crops of {sampling['crop_px']}x{sampling['crop_px']} px,"
        f" {sampling['seeds']} noises each, {sampling['steps']} steps. Errors are against the"
        " unquantized network from the same noise, whole and by octave of spatial frequency;"
        " [more](quality.md).",
        "",
        f"Missing: the metrics {', '.join(MISSING_METRICS)} (`qrun eval` takes them where their"
        " weights are).",
        "",
        *([] if notes is None else [notes.strip(), ""]),
    ]


def table(
    paper: PaperTable, measured: Mapping[str, Measured], learned: Sequence[Content] = ()
) -> list[str]:
    """One table of the rows that were measured; rows that were not are named.

    Args:
        paper: the table.
        measured: rows of `benchmarks.quality` by name.
        learned: rows of `benchmarks.learned`.
    """
    lines = [f"## Table {paper.number}: {paper.title}", ""]
    for target in dict.fromkeys(row.target for row in paper.rows):
        rows = [row for row in paper.rows if row.target == target]
        # Labels are the table's own: several have one row.
        found = [
            replace(measured[row.full_name], row=row) for row in rows if row.full_name in measured
        ]
        absent = [row.label for row in rows if row.full_name not in measured]
        lines += [f"{target}:", "", *error_table(found), ""] if found else []
        if any("truth_psnr_db" in entry.metrics for entry in found):
            lines += [*picture_table(found, {}), ""]
        of_target = [content for content in learned if content["row"]["target"] == target]
        theirs = [content for content in of_target if content["row"]["method"] in paper.learned]
        lines += [*learned_table(theirs), ""] if theirs else []
        known = {content["row"]["method"] for content in theirs}
        absent += [label for method, label in paper.learned.items() if method not in known]
        lines += [f"Not measured at {target}: {', '.join(absent)}.", ""] if absent else []
    return [*lines, paper.note, ""]


def figures(
    layer: str,
    found: Mapping[str, Outputs],
    removals: Sequence[Removal],
    errors: Mapping[str, Tensor],
    *,
    drawn: bool,
) -> list[str]:
    """What the figures show, in numbers, and the figures where there are any."""
    lines = ["## Figures 2 and 4", "", "| layer | components with 90 % of the energy | of |"]
    lines += ["|---|---|---|"]
    for name, outputs in found.items():
        shares = (outputs.energies / outputs.energies.sum()).cumsum(0)
        needed = int((shares < 0.9).sum()) + 1
        lines.append(f"| `{name}` | {needed} | {len(shares)} |")
    lines += ["", "| left out | energy | latent error, dB | " + ", ".join(OCTAVES) + ", dB |"]
    lines += ["|---|---|---|---|"]
    for r in removals:
        octaves = (r.errors_db.get(f"octave_{octave}_db") for octave in OCTAVES)
        shown = ", ".join("-" if value is None else f"{value:.1f}" for value in octaves)
        whole = f"{r.errors_db['latent_db']:.2f}"
        lines.append(f"| {r.which} {r.share:.0%} | {r.energy:.1%} | {whole} | {shown} |")
    lines += ["", f"Error of `{layer}` over the output's own energy, by component:", ""]
    lines += ["| components | " + " | ".join(errors) + " |", "|---" * (len(errors) + 1) + "|"]
    by_label = {label: grouped(relative) for label, relative in errors.items()}
    for index, (middle, _) in enumerate(next(iter(by_label.values()))):
        cells = (f"{points[index][1]:.3g}" for points in by_label.values() if index < len(points))
        lines.append(f"| around {middle:g} | " + " | ".join(cells) + " |")
    lines.append("")
    if drawn:
        for file, caption in zip(FILES, CAPTIONS, strict=True):
            lines += [f"![{caption}]({file})", "", f"{caption}.", ""]
    return lines
