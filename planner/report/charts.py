"""The plots of a report, as Vega-Lite that altair checks; the page's script brings the rows.

Every chart reads the data set ``rows``, which is empty here: the page holds each pack's values once
and makes rows of them by what is filtered. Colours come from the page's theme, by the ranges
``heatmap`` and ``category``, so that light and dark have their own.
"""

from typing import Any

import altair as alt

ROWS = "rows"
PANEL_PX = 190
SPARSE: dict[str, Any] = {"labelAngle": 0, "labelOverlap": "parity", "labelSeparation": 4}
"""Of an axis of numbers: those that have room."""
AnyChart = alt.Chart | alt.LayerChart | alt.FacetChart


def chart_specs() -> dict[str, dict[str, Any]]:
    """Name -> Vega-Lite specification."""
    charts: dict[str, AnyChart] = {
        "blocks": _grid("block:O", "block", "Mean bits of the block's layers", "bits:Q"),
        "layers": _grid("layer:N", None, "Activation bits", "bits:Q"),
        "profile": _profile(),
        "histogram": _histogram(),
        "variances": _variances(),
        "inputs": _inputs(),
        "bytes": _bytes(),
        "errors": _errors(),
    }
    return {name: chart.to_dict() for name, chart in charts.items()}


def _base() -> alt.Chart:
    return alt.Chart(alt.NamedData(name=ROWS)).properties(width="container")


def _bits(title: str) -> alt.Color:
    """Bits as colour, between the limits that the page sets for all grids alike."""
    return alt.Color("bits:Q", title=title, scale=alt.Scale(), legend=alt.Legend(format=".2~f"))


def _grid(y: str, title: str | None, meaning: str, value: str) -> alt.Chart:
    """Activation bits over timesteps (the paper's Fig. 9)."""
    return (
        _base()
        .mark_rect()
        .encode(
            x=alt.X("step:O", title="sampling step", axis=alt.Axis(**SPARSE)),
            y=alt.Y(y, title=title, sort=None, axis=alt.Axis(labelLimit=220)),
            color=_bits("bits"),
            tooltip=[
                alt.Tooltip(y, title=y.partition(":")[0]),
                alt.Tooltip("step:O", title="step"),
                alt.Tooltip("timestep:Q", title="timestep", format=".1f"),
                alt.Tooltip(value, title=meaning, format=".2~f"),
            ],
        )
    )


def _profile() -> alt.Chart:
    return (
        _base()
        .mark_rect()
        .encode(
            x=alt.X("block:O", title="block", axis=alt.Axis(**SPARSE)),
            y=alt.Y("kind:N", title=None, sort=None, axis=alt.Axis(labelLimit=220)),
            color=_bits("bits"),
            tooltip=[
                alt.Tooltip("layer:N"),
                alt.Tooltip("bits:Q", title="weight bits"),
                alt.Tooltip("weights:Q", title="weights", format=","),
            ],
        )
    )


def _histogram() -> alt.Chart:
    return (
        _base()
        .mark_bar()
        .encode(
            x=alt.X("bits:O", title="weight bits", axis=alt.Axis(labelAngle=0)),
            xOffset=alt.XOffset("pack:N", sort=None),
            y=alt.Y("sum(weights):Q", title="weights", axis=alt.Axis(format="~s", tickCount=5)),
            color=alt.Color("pack:N", title=None, sort=None),
            tooltip=[
                alt.Tooltip("pack:N"),
                alt.Tooltip("bits:O", title="weight bits"),
                alt.Tooltip("count():Q", title="layers"),
                alt.Tooltip("sum(weights):Q", title="weights", format=","),
            ],
        )
        .properties(height=PANEL_PX)
    )


def _variances() -> AnyChart:
    """A box over output channels for every layer (the paper's Fig. 5)."""
    x = alt.X("index:O", title="layer, in network order", axis=alt.Axis(labels=False, ticks=False))
    scale = alt.Scale(type="log", nice=False)
    tooltip = [
        alt.Tooltip("layer:N"),
        *(alt.Tooltip(f"{name}:Q", format=".3~g") for name in ("low", "median", "high")),
    ]
    base = _base().encode(x=x, tooltip=tooltip)
    title = "variance of an output channel"
    axis = alt.Axis(format=".0~e", tickCount=4)
    whiskers = base.mark_rule(opacity=0.45).encode(
        y=alt.Y("low:Q", title=title, scale=scale, axis=axis), y2="high:Q"
    )
    boxes = base.mark_bar(opacity=0.75).encode(
        y=alt.Y("lower:Q", title=title, scale=scale, axis=axis), y2="upper:Q"
    )
    medians = base.mark_tick(thickness=2, color="black").encode(
        y=alt.Y("median:Q", title=title, scale=scale, axis=axis)
    )
    return alt.layer(whiskers, boxes, medians).properties(width="container", height=PANEL_PX)


def _inputs() -> AnyChart:
    """Density of the layers' inputs at every timestep, and their median (the paper's Fig. 6)."""
    x = alt.X("step:O", title="sampling step", axis=alt.Axis(**SPARSE))
    base = _base()
    title = "log10 of the input's mean square"
    density = (
        base.transform_bin("bin", field="log", bin=alt.Bin(maxbins=24))
        .mark_rect()
        .encode(
            x=x,
            y=alt.Y("bin:Q", title=title, scale=alt.Scale(zero=False)),
            y2="bin_end:Q",
            color=alt.Color("count():Q", title="layers"),
            tooltip=[
                alt.Tooltip("step:O"),
                alt.Tooltip("bin:Q", title="log10, from", format=".2f"),
                alt.Tooltip("count():Q", title="layers"),
            ],
        )
    )
    median = base.mark_line(strokeWidth=2.5, color="#e4572e", point=True).encode(
        x=x, y=alt.Y("median(log):Q", title=title)
    )
    return alt.layer(density, median).properties(width="container", height=PANEL_PX + 40)


def _bytes() -> alt.Chart:
    return (
        _base()
        .mark_bar()
        .encode(
            x=alt.X("sum(bytes):Q", title="bytes", axis=alt.Axis(format="~s", tickCount=5)),
            y=alt.Y("kind:N", title=None, sort="-x", axis=alt.Axis(labelLimit=220)),
            color=alt.Color("part:N", title=None, sort=None, legend=alt.Legend(columns=3)),
            order=alt.Order("rank:Q"),
            tooltip=[
                alt.Tooltip("kind:N"),
                alt.Tooltip("part:N"),
                alt.Tooltip("sum(bytes):Q", title="bytes", format=","),
            ],
        )
    )


def _errors() -> alt.Chart:
    return (
        _base()
        .mark_point(filled=True, size=38, opacity=0.85)
        .encode(
            x=alt.X(
                "index:Q",
                title="layer, in network order",
                axis=alt.Axis(labels=False, ticks=False, grid=False),
                scale=alt.Scale(nice=False, padding=8),
            ),
            y=alt.Y(
                "error_db:Q",
                title="signal to noise, dB (more is better)",
                scale=alt.Scale(zero=False),
            ),
            color=alt.Color("pack:N", title=None, sort=None),
            shape=alt.Shape("pack:N", title=None, sort=None),
            tooltip=[
                alt.Tooltip("layer:N"),
                alt.Tooltip("pack:N"),
                alt.Tooltip("error_db:Q", title="dB", format=".2f"),
                alt.Tooltip("weight_bits:Q", title="weight bits"),
            ],
        )
        .properties(height=PANEL_PX + 30)
    )
