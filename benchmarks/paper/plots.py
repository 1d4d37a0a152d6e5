"""The figures, as PNG files (extra ``report``: altair, vl-convert)."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.paper.components import Outputs, Removal
from benchmarks.quality.plots import FAINT, INK, SHAPES, Values, save
from benchmarks.quality.spectrum import OCTAVES

FILES = ("paper_spectrum.png", "paper_removal.png", "paper_components.png")
GROUPS = 24
"""Points of the curves over components: single ones are noisy."""


def spectrum(found: Mapping[str, Outputs], out: Path) -> None:
    """Fig. 2, right: share of the energy in the leading components, one line for each block."""
    import altair as alt  # noqa: PLC0415  (an extra)

    values: Values = [
        {"block": name.split(".")[1], "component": index + 1, "energy": float(value)}
        for name, outputs in found.items()
        for index, value in enumerate(outputs.energies / outputs.energies.sum())
        if value > 0
    ]
    chart = (
        alt.Chart(alt.Data(values=values))
        .mark_line(strokeWidth=1.2, opacity=0.8)
        .encode(
            x=alt.X("component:Q", title="principal component", scale=alt.Scale(type="log")),
            y=alt.Y("energy:Q", title="share of the energy", scale=alt.Scale(type="log")),
            color=alt.Color("block:O", scale=alt.Scale(scheme="greys"), title="block"),
        )
    )
    save(chart.properties(width=420, height=260), out, FILES[0])


def removal(removals: Sequence[Removal], out: Path) -> None:
    """Fig. 4: error of the final latent, by octave, without leading or trailing components."""
    import altair as alt  # noqa: PLC0415

    values: Values = [
        {"left out": r.which, "share": r.share, "octave": octave, "db": r.errors_db[key]}
        for r in removals
        for octave in OCTAVES
        if (key := f"octave_{octave}_db") in r.errors_db
    ]
    base = alt.Chart(alt.Data(values=values)).encode(
        x=alt.X("share:Q", title="share of components left out"),
        y=alt.Y("db:Q", title="latent error, dB (higher is closer)"),
        shape=alt.Shape("octave:N", sort=list(OCTAVES), scale=alt.Scale(range=list(SHAPES[:3]))),
        detail="octave:N",
    )
    layered = base.mark_line(color=FAINT) + base.mark_point(color=INK, filled=True, size=45)
    panels = layered.properties(width=250, height=240).facet(facet="left out:N", columns=2)
    save(panels, out, FILES[1])


def components(errors: Mapping[str, Tensor], out: Path) -> None:
    """Fig. 4: error of weights in the unquantized network's components, over the outputs' own."""
    import altair as alt  # noqa: PLC0415

    values: Values = [
        {"factors": label, "component": at, "error": error}
        for label, relative in errors.items()
        for at, error in grouped(relative)
    ]
    base = alt.Chart(alt.Data(values=values)).encode(
        x=alt.X("component:Q", title="principal component", scale=alt.Scale(type="log")),
        y=alt.Y("error:Q", title="error over energy", scale=alt.Scale(type="log")),
        shape=alt.Shape("factors:N", scale=alt.Scale(range=list(SHAPES[: len(errors)]))),
        detail="factors:N",
    )
    chart = base.mark_line(color=FAINT) + base.mark_point(color=INK, filled=True, size=45)
    save(chart.properties(width=420, height=260), out, FILES[2])


def grouped(relative: Tensor) -> list[tuple[float, float]]:
    """Middle and geometric mean of runs of components whose lengths grow in proportion."""
    ends = torch.logspace(0, torch.log10(torch.tensor(len(relative))).item(), GROUPS + 1)
    bounds = sorted({0, *(round(float(end)) for end in ends)})
    found = []
    for low, high in itertools.pairwise(bounds):
        part = relative[low:high]
        positive = part[part > 0]
        if len(positive):
            found.append(((low + 1 + high) / 2, float(positive.log().mean().exp())))
    return found
