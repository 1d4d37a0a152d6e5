"""``qplan report``: one page that shows a pack, or two side by side.

Heavy imports stand inside the function, so that ``--help`` is answered at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from artifacts.cli.exit_codes import exit_on_error
from artifacts.cli.output import print_json, say
from planner.cli.options import Debug, Json
from schemas.errors import UsageError

REPORT_EXAMPLE = "Example:  qplan report w4a4.qpack w3a4.qpack -o report.html"


def report(
    pack: Annotated[Path, typer.Argument(metavar="PACK", help="A .qpack folder.")],
    other: Annotated[
        Path | None, typer.Argument(metavar="[OTHER]", help="One to show beside it.")
    ] = None,
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="The page.")] = Path("report.html"),
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What `qplan calibrate` found: adds the inputs over timesteps."
        ),
    ] = None,
    weights: Annotated[
        bool,
        typer.Option(
            "--weights/--no-weights",
            help="Decode every layer for the variances of its channels; a minute or more at 2.7"
            " billion weights.",
        ),
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace an older file.")] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Show a pack as one HTML page: bits, variances, bytes, errors, operations, by layer.

    The page holds everything it needs, and asks the network for nothing.
    """
    with exit_on_error(debug=debug):
        from artifacts.files.whole_file import write_text
        from artifacts.hub.fetch import local_pack
        from artifacts.pack.reader import open_pack
        from planner.calibrate.calibration_file import read_calibration
        from planner.cli.progress import BarProgress
        from planner.inspect.pack_diff import compare
        from planner.report.channel_variances import channel_variances
        from planner.report.facts import check_same_source, labels, pack_facts
        from planner.report.page import check_report_extra, report_page

        check_report_extra()
        if out.is_dir() or not out.absolute().parent.is_dir():
            raise UsageError(f"{out} cannot be written: it is a folder, or in none")
        if out.suffix.lower() not in {".html", ".htm"}:
            raise UsageError(f"{out}: the page's name ends in .html")
        if out.exists() and not force:
            raise UsageError(f"{out} exists", hint="choose another output, or use --force")
        packs = [open_pack(local_pack(path)) for path in (pack, other) if path is not None]
        measured = None if calibration is None else read_calibration(calibration)
        fits = [False] * len(packs) if measured is None else check_same_source(measured, packs)
        shown = []
        with BarProgress(enabled=not json_output) as progress:
            for opened, label, calibrated in zip(packs, labels(packs), fits, strict=True):
                names = list(opened.manifest.layers)
                shown.append(
                    pack_facts(
                        opened,
                        label,
                        variances=channel_variances(opened, names, progress) if weights else None,
                        calibration=measured if calibrated else None,
                    )
                )
        changed = compare(*packs)["settings"] if len(packs) > 1 else None
        page = report_page(shown, changed)
        write_text(out, page)
        size = len(page.encode())
        if json_output:
            print_json({"report": str(out), "packs": [str(p.path) for p in packs], "bytes": size})
        else:
            say(f"{out}: {size:,} bytes")
