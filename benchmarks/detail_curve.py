"""How much detail guidance, prompt and steps buy from the bundled model, and at what fidelity.

    python -m benchmarks.detail_curve --out docs/results

The crops of ``training.evaluate --limit 18``, once for every setting. Finished settings stay in the
work folder, so an interrupted run goes on with the first that is missing. Writes
``detail_curve.json`` and a plot, and prints the table.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.quality.measure import Sampling
from benchmarks.quality.store import RowStore, key_of
from runtime.images.resizing import resize
from runtime.load import load_full_precision
from runtime.pipeline import Pipeline
from training.evaluate import enlarge, means, with_prompts
from training.evaluation_set import Case, evaluation_set, spread
from training.photos.gather import default_cache

MODEL = Path("artifacts/demo/dit4sr-mini")
NEGATIVE = "low quality"
PLOT = "detail_curve.png"


@dataclass(frozen=True)
class Setting:
    """One way to sample.

    Attributes:
        prompt: name of the positive one; the negative one is ``NEGATIVE``.
        steps, guidance: of the sampler.
    """

    prompt: str
    steps: int
    guidance: float


@dataclass(frozen=True)
class Point:
    """What a setting reaches, means over the crops.

    Attributes:
        label: for readers.
        setting: None for bicubic interpolation.
        psnr_db, fsim, ciede2000: to the truth.
        upper_octave: power above half the Nyquist frequency, of the truth's.
    """

    label: str
    setting: Setting | None
    psnr_db: float
    fsim: float
    ciede2000: float
    upper_octave: float


def point(label: str, setting: Setting | None, found: dict[str, float]) -> Point:
    """The point of ``training.evaluate``'s means."""
    names = ("psnr_db", "fsim", "ciede2000", "upper_octave")
    return Point(label, setting, *(found[name] for name in names))


def sample(pipeline: Pipeline, cases: Sequence[Case], setting: Setting) -> dict[str, float]:
    """Means over the crops at one setting; crop i starts from noise i, whatever the setting."""
    settings = pipeline.sampling.override(
        patch_size=pipeline.patch_size, steps=setting.steps, guidance=setting.guidance
    )
    return means(enlarge(pipeline, cases, settings), cases)


def table(points: Sequence[Point]) -> str:
    """The points in Markdown."""
    lines = [
        "| prompt | steps | guidance | PSNR, dB | FSIM | CIEDE2000 | upper octave's power |",
        "|---|---|---|---|---|---|---|",
    ]
    for p in points:
        how = "| bicubic | | |"
        if p.setting is not None:
            how = f"| {p.setting.prompt} | {p.setting.steps} | {p.setting.guidance:g} |"
        lines.append(
            f"{how} {p.psnr_db:.2f} | {p.fsim:.3f} | {p.ciede2000:.2f} | {p.upper_octave:.2f} |"
        )
    return "\n".join(lines)


def plot(points: Sequence[Point], file: Path) -> None:
    """PSNR, FSIM and colour against the share of detail, a line per prompt and number of steps."""
    import altair as alt  # noqa: PLC0415  (an extra)

    titles = {"psnr_db": "PSNR, dB", "fsim": "FSIM", "ciede2000": "CIEDE2000"}
    values: list[dict[str, Any]] = [
        {
            "line": f"{p.setting.prompt}, {p.setting.steps} steps" if p.setting else "bicubic",
            "guidance": p.setting.guidance if p.setting else 1.0,
            **asdict(p),
        }
        for p in points
    ]
    base = alt.Chart(alt.Data(values=values)).encode(
        x=alt.X("upper_octave:Q", title="power of the upper octave, of the truth's"),
        color=alt.Color("line:N", legend=alt.Legend(title=None, orient="top")),
        order=alt.Order("guidance:Q"),
    )
    panels = []
    for name, title in titles.items():
        panel = base.encode(y=alt.Y(f"{name}:Q", title=title, scale=alt.Scale(zero=False)))
        panels.append((panel.mark_line() + panel.mark_point(filled=True)).properties(width=220))
    alt.hconcat(*panels).save(file, scale_factor=2)


def main(argv: Sequence[str] | None = None) -> int:
    """Sample what is missing, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--photos", type=Path, default=default_cache())
    parser.add_argument("--limit", type=int, default=18, help="crops, default: %(default)s")
    parser.add_argument("--prompts", default="natural,sharp")
    parser.add_argument("--steps", default="8,20")
    parser.add_argument("--guidance", default="1,1.1,1.2,1.3,1.5")
    parser.add_argument("--work", type=Path, default=Path("out/detail_curve"))
    parser.add_argument("--out", type=Path, help="folder for the results; printed only without")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="sample nothing; show what is there")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)

    cases = spread(evaluation_set(arguments.photos, "blind"), arguments.limit)
    pipeline = load_full_precision(arguments.model, device=torch.device("cpu"), dtype=torch.float32)
    store = RowStore(arguments.work)
    crops = [case.name for case in cases]
    model = Sampling(arguments.model, 0, 0, 0, 0, 0.0, pictures=False).key_parts()
    bicubic = [resize(case.small, case.truth.shape[-2:]) for case in cases]
    points = [point("bicubic", None, means(bicubic, cases))]
    settings = [
        Setting(prompt, int(steps), float(guidance))
        for prompt, steps, guidance in itertools.product(
            *(text.split(",") for text in (arguments.prompts, arguments.steps, arguments.guidance))
        )
    ]
    for setting in settings:
        label = f"{setting.prompt}, {setting.steps} steps, guidance {setting.guidance:g}"
        key = key_of({"model": model, "crops": crops, "setting": asdict(setting)})
        found = store.load(label, key)
        if found is None and not arguments.report:
            print(label, file=sys.stderr, flush=True)
            prompted = with_prompts(pipeline, arguments.model, setting.prompt, NEGATIVE)
            found = store.save(label, key, sample(prompted, cases, setting))
        if found is not None:
            points.append(point(label, setting, found))
    print(table(points))
    if arguments.out:
        content = {"crops": crops, "points": [asdict(p) for p in points]}
        (arguments.out / "detail_curve.json").write_text(json.dumps(content, indent=1) + "\n")
        plot(points, arguments.out / PLOT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
