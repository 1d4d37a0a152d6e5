"""From measured rows to ``quality.json`` and ``quality.md``."""

import datetime
import importlib.metadata
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality.compare import device_label
from benchmarks.quality.intervals import paired_difference, per_image
from benchmarks.quality.measure import Values
from benchmarks.quality.rows import Row
from benchmarks.quality.store import Content
from runtime.bench.workload import Ranks
from runtime.evaluation.statistics import CONFIDENCE, RESAMPLES, Interval, mean_interval

NOTES = "quality_notes.md"
NOTES_MARK = "<!-- notes -->"
FULL_PRECISION = "full-precision"
BASELINE_LABELS = {FULL_PRECISION: "full precision", "bicubic": "bicubic"}


@dataclass(frozen=True)
class Metric:
    """One column: how its numbers are headed and printed."""

    heading: str
    digits: int


METRICS = {
    "latent_db": Metric("latent error, dB", 2),
    "octave_coarse_db": Metric("coarse, dB", 2),
    "octave_middle_db": Metric("middle, dB", 2),
    "octave_fine_db": Metric("fine, dB", 2),
    "reference_psnr_db": Metric("PSNR to full precision, dB", 2),
    "reference_fsim": Metric("FSIM to full precision", 4),
    "reference_gmsd": Metric("GMSD to full precision", 4),
    "truth_psnr_db": Metric("PSNR to the truth, dB", 2),
    "truth_fsim": Metric("FSIM to the truth", 4),
    "piqe": Metric("PIQE", 1),
}
KEPT = ("recipe", "settings", "reached", "stored_bits", "groups", "same_as", "draws", "device")
OCTAVES = ("octave_coarse_db", "octave_middle_db", "octave_fine_db")
PACKAGES = ("torch", "diffusers", "pyiqa", "sdnq", "comfy-kitchen")


@dataclass(frozen=True)
class Measured:
    """A row with its statistics.

    Attributes:
        row: what was asked for.
        content: what was stored.
        metrics: metric -> interval of the mean.
        differences: name of another row -> metric -> interval of the paired difference to it.
    """

    row: Row
    content: Content
    metrics: dict[str, Interval]
    differences: dict[str, dict[str, Interval]]


def analyse(
    rows: Sequence[Row], contents: Mapping[str, Content], baselines: Mapping[str, Values]
) -> list[Measured]:
    """Intervals of every measured row, and of its difference to the rows it is paired with."""
    found = []
    full = baselines.get(FULL_PRECISION)
    for row in rows:
        content = contents.get(row.full_name)
        if content is None:
            continue
        values: Values = content["values"]
        others = {
            name: contents[f"{row.target}/{name}"]["values"]
            for name in row.against
            if f"{row.target}/{name}" in contents
        }
        if full is not None:
            others[FULL_PRECISION] = full
        differences = {
            name: {
                metric: paired_difference(values[metric], other[metric])
                for metric in METRICS
                if metric in values and metric in other
            }
            for name, other in others.items()
        }
        found.append(Measured(row, content, _intervals(values), differences))
    return found


def _intervals(values: Values) -> dict[str, Interval]:
    return {m: mean_interval(per_image(values[m])) for m in METRICS if m in values}


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def to_json(
    measured: Sequence[Measured],
    baselines: Mapping[str, Values],
    sampling: Mapping[str, Any],
) -> dict[str, Any]:
    """All results as JSON values.

    An interval is [mean, low, high]; single values are means over the seeds of an image.
    """
    rows = {}
    for entry in measured:
        content = entry.content
        rows[entry.row.full_name] = {
            "label": entry.row.label,
            "second_ranks": entry.row.second,
            "sdnq": dict(entry.row.sdnq),
            "comfy": dict(entry.row.comfy),
            **{key: content[key] for key in KEPT if key in content},
            "metrics": {metric: _rounded(i) for metric, i in entry.metrics.items()},
            "differences": {
                name: {metric: _rounded(i) for metric, i in of_metric.items()}
                for name, of_metric in entry.differences.items()
            },
            "per_image": _per_image(content["values"]),
        }
    return {
        "sampling": dict(sampling),
        "statistics": {"confidence": CONFIDENCE, "resamples": RESAMPLES, "drawn": "images"},
        "interval": ["mean", "low", "high"],
        "versions": versions(),
        "code": sorted({entry.content["code"] for entry in measured}),
        "baselines": {
            name: {
                "metrics": {m: _rounded(i) for m, i in _intervals(values).items()},
                "per_image": _per_image(values),
            }
            for name, values in baselines.items()
        },
        "rows": rows,
    }


def _rounded(interval: Interval) -> list[float]:
    return [round(value, 5) for value in (interval.mean, interval.low, interval.high)]


def _per_image(values: Values) -> dict[str, list[float]]:
    return {m: [round(float(v), 4) for v in per_image(values[m])] for m in METRICS if m in values}


def to_markdown(
    measured: Sequence[Measured],
    baselines: Mapping[str, Values],
    sampling: Mapping[str, Any],
    *,
    network: str,
    ranks: Ranks,
    second: Ranks,
    command: str,
    plots: Sequence[tuple[str, str]],
    notes: str | None,
) -> str:
    """The results as a document.

    Args:
        measured: all rows, in order.
        baselines: pictures that no quantized network made.
        sampling: how everything was sampled.
        network: its name.
        ranks: of the main rows.
        second: of the second set.
        command: that made all this.
        plots: file name and caption of every plot.
        notes: written by hand, or None.
    """
    targets = list(dict.fromkeys(entry.row.target for entry in measured))
    lines = [
        f"# Recipes compared on {network}",
        "",
        f"Measured on {datetime.datetime.now(tz=datetime.UTC).date()} on"
        f" {_devices(measured)}, torch {versions()['torch']}, float32, reference backend:",
        "",
        "```",
        "pip install -e '.[dev,eval,peers]'",
        command,
        "```",
        "",
        *_introduction(sampling, ranks, second),
        "",
        NOTES_MARK,
        *([] if notes is None else [notes.strip()]),
        "",
    ]
    for target in targets:
        of_target = [entry for entry in measured if entry.row.target == target]
        lines += [f"## {target}", ""]
        main = [entry for entry in of_target if not entry.row.second]
        if main:
            lines += [f"Ranks {ranks} where a row has factors.", "", *error_table(main), ""]
            if any("truth_psnr_db" in entry.metrics for entry in main):
                lines += [*picture_table(main, baselines), ""]
        others = [entry for entry in of_target if entry.row.second]
        if others:
            lines += [f"Ranks {second}:", "", *error_table(others), ""]
            if any("truth_psnr_db" in entry.metrics for entry in others):
                lines += [*picture_table(others, {}), ""]
        lines += _same_networks(of_target)
        if any(entry.row.sdnq for entry in of_target):
            lines += _sdnq_legend(of_target)
        if any(entry.row.comfy for entry in of_target):
            lines += _comfy_legend(of_target)
    for file, caption in plots:
        lines += [f"![{caption}]({file})", "", caption + ".", ""]
    return "\n".join(lines)


def _devices(measured: Sequence[Measured]) -> str:
    here = device_label(torch.device("cpu"))  # rows from before it was kept
    known = (entry.content.get("device", here) for entry in measured)
    return " and ".join(dict.fromkeys(known))


def _introduction(sampling: Mapping[str, Any], ranks: Ranks, second: Ranks) -> list[str]:
    return [
        f"{sampling['crops']} crops of {sampling['crop_px']}x{sampling['crop_px']} px of astronaut,"
        " chelsea and coffee, which the model was never trained on; no two share a pixel. Each is"
        " degraded by seeded random blur, four times smaller, noise and JPEG, and enlarged from"
        f" {sampling['seeds']} starting noises with {sampling['steps']} steps and guidance"
        f" {sampling['guidance']:g}. Every row starts from the same noises as the unquantized"
        " network and shares all but the quantized layers with it. Calibrated rows saw 32 degraded"
        " crops of training photos.",
        "",
        "- **latent error**: `20 log10(|full| / |full - quantized|)` of the final latent, in dB;"
        " higher is closer to the unquantized network.",
        "- **coarse, middle, fine**: the same error by spatial frequency: below a quarter of the"
        " highest, up to half of it, and above.",
        "- **stored bits**: per weight, with scales, factors, smoothing and table; biases aside.",
        f"- **[low, high]**: {CONFIDENCE:.0%} percentile bootstrap over images ({RESAMPLES:,}"
        " draws), seeds averaged within an image first.",
        "- **by draw**: means of several builds of a recipe, each with random signs of its own; the"
        " number before it is over all of them.",
        "- **minus ...**: the paired difference, image by image, to the row named; bold where its"
        " interval excludes zero. No correction is made for the number of comparisons, and the"
        " crops come from three photos, so they are more alike than as many photos would be.",
        "- VaTMP is off from 6 activation bits on, as in the paper; there the last row of the chain"
        " is the row before it.",
        f"- Ranks {ranks} are the paper's 32+8 scaled with the width, 192 in the bundled model for"
        f" 1536; {second} are the paper's own numbers, a sixth of that width.",
    ]


def error_table(entries: Sequence[Measured]) -> list[str]:
    """Errors of the final latent, whole and by octave, as lines of a table."""
    lines = [
        "| row | stored bits | activation bits | latent error, dB | minus ... | minus QuaRot |"
        " coarse, middle, fine, dB |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in entries:
        near = next((n for n in entry.row.against if n in entry.differences), None)
        before = quarot = ""
        if near is not None and near != "quarot":
            before = f"{_signed(entry.differences[near]['latent_db'], 2)} `{near}`"
        if "quarot" in entry.differences:
            quarot = _signed(entry.differences["quarot"]["latent_db"], 2)
        lines.append(
            _line(
                f"{entry.row.label} (`{entry.row.name}`)",
                f"{entry.content['stored_bits']:.2f}",
                _activation_bits(entry),
                _shown(entry.metrics["latent_db"], 2) + _range_of_draws(entry),
                before,
                quarot,
                ", ".join(f"{entry.metrics[m].mean:.1f}" for m in OCTAVES if m in entry.metrics),
            )
        )
    return lines


def _range_of_draws(entry: Measured) -> str:
    draws = entry.content.get("draws", [])
    return f"; {min(draws):.1f} to {max(draws):.1f} by draw" if len(draws) > 1 else ""


def _activation_bits(entry: Measured) -> str:
    if entry.row.sdnq:
        return "8" if entry.row.sdnq.get("use_quantized_matmul") else "16"
    if entry.row.comfy:
        return entry.row.target.partition("A")[2]
    return f"{entry.content['reached']['activation_bits']:g}"


def picture_table(entries: Sequence[Measured], baselines: Mapping[str, Values]) -> list[str]:
    """Metrics of the pictures, baselines first, as lines of a table."""
    metrics = [m for m in METRICS if m != "latent_db" and m not in OCTAVES]
    lines = [
        _line("row", *(METRICS[m].heading for m in metrics)),
        "|" + "---|" * (len(metrics) + 1),
    ]
    for name, values in baselines.items():
        found = _intervals(values)
        cells = [_shown(found[m], METRICS[m].digits) if m in found else "" for m in metrics]
        lines.append(_line(BASELINE_LABELS[name], *cells))
    for entry in entries:
        cells = [_shown(entry.metrics[m], METRICS[m].digits) for m in metrics]
        lines.append(_line(entry.row.label, *cells))
    return lines


def _same_networks(entries: Iterable[Measured]) -> list[str]:
    same = [
        f"`{entry.row.name}` is the same network as `{entry.content['same_as'].split('/')[1]}`"
        for entry in entries
        if entry.content.get("same_as")
    ]
    if not same:
        return []
    return [
        "Measured once, because their packs have the same weights, bits and quantizer: "
        + "; ".join(same)
        + ".",
        "",
    ]


def _sdnq_legend(entries: Iterable[Measured]) -> list[str]:
    groups = [
        f"`{entry.row.name}` {' and '.join(map(str, entry.content['groups']))}"
        for entry in entries
        if entry.row.sdnq
    ]
    version = next(entry.content["version"] for entry in entries if entry.row.sdnq)
    return [
        f"SDNQ {version}, by its own code on the same layers of the same checkpoint. Equal: the"
        " layers, everything around them, sampling and noise. Not equal: it rounds to levels that"
        " span the largest magnitude, rotates blocks of at most 256 inputs without signs, and"
        " gives every layer the same bits. Its stored bits count codes, scales and zero points as"
        " it holds them (32-bit) and factors at 16 bits, as ours. Inputs that share a scale: "
        + "; ".join(groups)
        + ". Its own 8-bit product requantizes weights to 8 bits and leaves inputs of fewer than"
        " 32 tokens (modulation, and the 4 tokens of text) unquantized.",
        "",
    ]


def _comfy_legend(entries: Iterable[Measured]) -> list[str]:
    version = next(entry.content["version"] for entry in entries if entry.row.comfy)
    return [
        f"comfy-kitchen {version}, by its own code for processors on the same layers of the same"
        " checkpoint: blocks of at most 256 inputs rotated without signs, no factors, the same bits"
        " everywhere. Its stored bits count codes, scales and codebooks as it holds them.",
        "",
    ]


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _shown(interval: Interval, digits: int) -> str:
    return f"{interval.mean:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def _signed(interval: Interval, digits: int) -> str:
    bold = "**" if interval.excludes_zero else ""
    return (
        f"{bold}{interval.mean:+.{digits}f}{bold}"
        f" [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"
    )


def read_notes(folder: Path, name: str = NOTES) -> str | None:
    """The hand-written part of a page, where there is one."""
    path = folder / name
    return path.read_text() if path.is_file() else None
