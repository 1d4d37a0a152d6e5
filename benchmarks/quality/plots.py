"""Plots of the comparison, as PNG files (extra ``report``: altair, vl-convert).

Readable in grayscale: rows are told apart by shape, position and lightness, not by hue.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.quality.kinds import KINDS, block_of, kind_of
from benchmarks.quality.report import Measured
from planner.allocate.vasmp import LayerStatistics

INK = "#222222"
FAINT = "#8a8a8a"
FONT_SIZE = 11
COLOURS = 64
FAMILIES = ("RTN", "QuaRot", "SVDQuant", "Q-DiT4SR", "SDNQ", "comfy-kitchen", "ours")
SHAPES = ("cross", "square", "triangle-up", "circle", "diamond", "triangle-down", "triangle-right")
SHADES = ("#8a8a8a", "#1f77b4", "#d98200", "#111111", "#7b3294", "#2ca02c", "#b2182b")

BIT_SHADES = ("#f0f5fb", "#cfe0f1", "#a3c7e4", "#6ba5d2", "#3a7fbd", "#14579c", "#07264f")
"""2 ... 8 bits, from light to dark."""

Values = list[dict[str, Any]]


def error_by_recipe(
    measured: Sequence[Measured], targets: Sequence[str], out: Path
) -> tuple[str, str]:
    """Latent error of every row with its interval, one panel per target."""
    import altair as alt  # noqa: PLC0415  (an extra)

    main = [entry for entry in measured if entry.row.target in targets]
    labels = list(dict.fromkeys(entry.row.label for entry in main))
    values: Values = [
        {
            "target": entry.row.target,
            "row": entry.row.label,
            "ranks": "second ranks" if entry.row.second else "main ranks",
            **_interval(entry),
        }
        for entry in main
    ]
    base = alt.Chart(alt.Data(values=values)).encode(
        y=alt.Y("row:N", sort=labels, title=None, axis=alt.Axis(labelLimit=260)),
        yOffset=alt.YOffset("ranks:N", sort=["main ranks", "second ranks"]),
    )
    title, scale = "latent error, dB (higher is closer)", alt.Scale(zero=False)
    style = alt.Scale(domain=["main ranks", "second ranks"], range=[INK, FAINT])
    shape = alt.Scale(domain=["main ranks", "second ranks"], range=["circle", "square"])
    rules = base.mark_rule(strokeWidth=1.5).encode(
        x=alt.X("low:Q", title=title, scale=scale),
        x2="high:Q",
        color=alt.Color("ranks:N", scale=style),
    )
    points = base.mark_point(filled=True, size=34, opacity=1).encode(
        x=alt.X("mean:Q", title=title, scale=scale),
        color=alt.Color("ranks:N", scale=style, legend=alt.Legend(title=None, orient="top")),
        shape=alt.Shape("ranks:N", scale=shape, legend=alt.Legend(title=None, orient="top")),
    )
    panels = alt.layer(rules, points).properties(width=250, height=17 * len(labels))
    chart = panels.facet(
        facet=alt.Facet("target:N", sort=list(targets), title=None), columns=2
    ).resolve_scale(x="independent")
    return save(chart, out, "quality_error.png"), "Latent error by recipe, 95 % intervals"


def pareto(measured: Sequence[Measured], out: Path) -> tuple[str, str]:
    """Latent error against stored bits, one panel per width of the activations."""
    import altair as alt  # noqa: PLC0415

    values: Values = []
    for entry in measured:
        if entry.row.family not in FAMILIES:
            continue
        bits = entry.row.target.partition("A")[2]
        values.append(
            {
                "activations": f"A{bits}",
                "family": entry.row.family,
                "second": entry.row.second,
                "stored": entry.content["stored_bits"],
                "target": entry.row.target,
                "order": float(bits),
                **_interval(entry),
            }
        )
    widths = sorted({v["activations"] for v in values}, key=lambda a: float(a[1:]))
    shared = alt.Legend(title=None, orient="top")
    base = alt.Chart(alt.Data(values=values)).encode(
        x=alt.X(
            "stored:Q", title="stored bits per weight", scale=alt.Scale(zero=False, padding=12)
        ),
        color=alt.Color("family:N", scale=alt.Scale(domain=FAMILIES, range=SHADES), legend=shared),
    )
    rules = base.mark_rule().encode(
        y=alt.Y("low:Q", title="latent error, dB", scale=alt.Scale(zero=False)), y2="high:Q"
    )
    points = base.mark_point(size=55, opacity=1, strokeWidth=1.6).encode(
        y=alt.Y("mean:Q", title="latent error, dB", scale=alt.Scale(zero=False)),
        shape=alt.Shape("family:N", scale=alt.Scale(domain=FAMILIES, range=SHAPES), legend=shared),
    )
    panels = alt.layer(rules, points).properties(width=270, height=210)
    chart = panels.facet(facet=alt.Facet("activations:N", sort=widths, title=None), columns=2)
    return save(chart, out, "quality_pareto.png"), (
        "Latent error against stored bits, by activation bits; both sets of ranks"
    )


def bit_grid(layers: Mapping[str, Mapping[str, Any]], target: str, out: Path) -> tuple[str, str]:
    """Bits of every layer: activations over the steps, weights in a column of their own.

    Args:
        layers: layer -> ``weight_bits`` and ``activation_bits``.
        target: for the caption.
        out: folder.
    """
    import altair as alt  # noqa: PLC0415

    names = sorted(layers, key=lambda n: (KINDS.index(kind_of(n)), block_of(n), n))
    values: Values = []
    for name in names:
        layer = layers[name]
        place = {"layer": name, "kind": kind_of(name)}
        values.append({**place, "column": "W", "bits": layer["weight_bits"]})
        values += [
            {**place, "column": str(step), "bits": bits}
            for step, bits in enumerate(layer["activation_bits"], start=1)
        ]
    columns = list(dict.fromkeys(value["column"] for value in values))
    columns.sort(key=lambda c: (c != "W", int(c) if c != "W" else 0))
    chart = (
        alt.Chart(alt.Data(values=values))
        .mark_rect()
        .encode(
            x=alt.X(
                "column:N", sort=columns, title="weights, then steps", axis=alt.Axis(labelAngle=0)
            ),
            y=alt.Y("layer:N", sort=names, title=None, axis=None),
            color=alt.Color(
                "bits:O",
                title="bits",
                scale=alt.Scale(domain=list(range(2, 9)), range=BIT_SHADES),
            ),
        )
        .properties(width=280, height=alt.Step(5))
        .facet(
            row=alt.Row(
                "kind:N",
                sort=list(KINDS),
                title=None,
                header=alt.Header(labelAngle=0, labelAlign="left", labelLimit=200),
            ),
            spacing=4,
        )
        .resolve_scale(y="independent")
    )
    return save(chart, out, "quality_bit_grid.png"), (
        f"Bit grid of Q-DiT4SR at {target}: every line is a layer, grouped by kind"
    )


def activation_variance(mean_squares: Mapping[str, Sequence[float]], out: Path) -> tuple[str, str]:
    """Mean square of the layers' inputs over the steps, by kind of layer."""
    import altair as alt  # noqa: PLC0415

    values: Values = [
        {"layer": name, "kind": kind_of(name), "step": step, "value": value}
        for name, steps in mean_squares.items()
        for step, value in enumerate(steps, start=1)
    ]
    lines = (
        alt.Chart(alt.Data(values=values))
        .mark_line(strokeWidth=0.8, color=INK, opacity=0.7)
        .encode(
            x=alt.X("step:O", title="step", axis=alt.Axis(labelAngle=0)),
            y=alt.Y(
                "value:Q",
                title="mean square",
                scale=alt.Scale(type="log", nice=False),
                axis=alt.Axis(tickCount=4),
            ),
            detail="layer:N",
        )
        .properties(width=165, height=105)
        .facet(facet=alt.Facet("kind:N", sort=list(KINDS), title=None), columns=4)
    )
    return save(lines, out, "quality_activations.png"), (
        "Mean square of every layer's input over the steps (unquantized network), by kind of layer"
    )


def weight_variance(statistics: Sequence[LayerStatistics], out: Path) -> tuple[str, str]:
    """Variance of the rotated weights by kind of layer: what VaSMP decides from."""
    import altair as alt  # noqa: PLC0415

    values: Values = [
        {"kind": kind_of(layer.name), "variance": layer.variance} for layer in statistics
    ]
    base = alt.Chart(alt.Data(values=values)).encode(
        x=alt.X(
            "variance:Q",
            title="variance of the rotated weight",
            scale=alt.Scale(type="log", nice=False, padding=12),
            axis=alt.Axis(tickCount=6),
        ),
        y=alt.Y("kind:N", sort=list(KINDS), title=None, axis=alt.Axis(labelLimit=200)),
    )
    boxes = base.mark_boxplot(color="#c9c9c9", size=11, outliers=False, extent="min-max")
    points = base.mark_point(filled=True, size=14, color=INK, opacity=0.8)
    chart = (boxes + points).properties(width=420, height=19 * len(KINDS))
    return save(chart, out, "quality_weights.png"), (
        "Mean row variance of the rotated weights, one dot per layer, by kind of layer"
    )


def _interval(entry: Measured) -> dict[str, float]:
    found = entry.metrics["latent_db"]
    return {"mean": found.mean, "low": found.low, "high": found.high}


def predicted_and_measured(points: Sequence[tuple[str, str, float, float]], file: Path) -> None:
    """Errors in dB as the first-order model has them, and as they are.

    Args:
        points: label of a kind of packs, target, predicted, measured.
        file: the picture's.
    """
    import altair as alt  # noqa: PLC0415

    values: Values = [
        {"pack": label, "target": target, "predicted": predicted, "measured": found}
        for label, target, predicted, found in points
    ]
    ends = [min(min(p[2:]) for p in points) - 1, max(max(p[2:]) for p in points) + 1]
    scale = alt.Scale(domain=ends, nice=False)
    base = alt.Chart(alt.Data(values=values)).encode(
        x=alt.X("predicted:Q", title="predicted error of the latent, dB", scale=scale),
        y=alt.Y("measured:Q", title="measured, dB", scale=scale),
    )
    kinds = sorted({label for label, *_ in points})
    shapes = alt.Scale(domain=kinds, range=list(SHAPES[: len(kinds)]))
    marks = base.mark_point(size=60, color=INK).encode(
        shape=alt.Shape("pack:N", scale=shapes, legend=alt.Legend(title=None, orient="top"))
    )
    names = base.mark_text(align="left", dx=7, fontSize=FONT_SIZE - 2).encode(text="target:N")
    line = alt.Chart(alt.Data(values=[{"at": end} for end in ends])).mark_line(
        color=FAINT, strokeDash=[4, 3]
    )
    equal = line.encode(x=alt.X("at:Q", scale=scale), y=alt.Y("at:Q", scale=scale))
    save((equal + marks + names).properties(width=420, height=420), file.parent, file.name)


def save(chart: Any, out: Path, name: str) -> str:
    """Write a chart to ``out`` as a PNG with few colours; returns its name."""
    drawn = io.BytesIO()
    chart.configure_axis(labelFontSize=FONT_SIZE, titleFontSize=FONT_SIZE).configure_view(
        strokeWidth=0.5
    ).save(drawn, format="png", scale_factor=1.5)
    # A palette makes the files four times smaller, and flat plots no worse.
    Image.open(drawn).convert("RGB").quantize(COLOURS).save(out / name, optimize=True)
    return name
