"""``qrun upscale``: images to images four times as large.

Heavy imports stand inside the functions that need them, so that ``--help`` and a mistyped path are
answered at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from artifacts.cli.exit_codes import exit_on_error
from artifacts.cli.output import print_json
from runtime.cli.machines import MachinesOptions
from runtime.cli.model import BaseOptions, NetworkOptions, PromptOptions, local_pack
from runtime.cli.options import Debug, Json
from runtime.cli.record import Records, common_record
from runtime.cli.results import ResultOptions
from runtime.cli.screen import Screen
from runtime.cli.upscale_jobs import Batch, peak_memory, upscale_jobs
from runtime.cli.upscale_work import ImageWork, ModelChoice
from runtime.compare.place import check_page
from runtime.images.batch import Outcome
from runtime.images.job_plan import plan_jobs
from runtime.remote.place import as_place
from schemas.errors import BatchError, UsageError

if TYPE_CHECKING:
    from runtime.cli.model import ModelCheck
    from runtime.loader import Loader

UPSCALE_EXAMPLE = """
Examples:

qrun upscale photo.jpg --pack model.qpack

qrun upscale photos/ --pack model.qpack -o upscaled/ --steps 20

qrun upscale photos/ --pack model.qpack -r -o upscaled/ --format jpg --compare look.html

qrun upscale photos/ --pack model.qpack --base sd3.5-medium/ --prompt-dir captions/

qrun upscale photo.jpg --pack org/name@v1

qrun upscale s3://bucket/photos -o s3://bucket/upscaled/ --pack org/name@v1 --engine ray
"""


def upscale(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="Images, or folders of images; also as URLs."),
    ],
    *,
    pack: Annotated[
        Path | None,
        typer.Option(help="The .qpack folder to run, or org/name[@revision] on the hub."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "-o", "--out", help="A folder; for one input also a file. Default: beside the input."
        ),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("-r", "--recursive", help="Also the folders inside of folders.")
    ] = False,
    results: ResultOptions,
    network: NetworkOptions,
    base: BaseOptions,
    prompts: PromptOptions,
    machines: MachinesOptions,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="PAGE", help="Also write this HTML page: before and after."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Redo finished outputs.")] = False,
    json_output: Json = False,
    debug: Debug = False,
    load_pipeline: "Loader",
    check_model: "ModelCheck",
) -> None:
    """Upscale images by four, or restore them at their own or twice their size.

    Results are named <stem>_x4.png, longer where two would have one name. An output that exists is
    finished and is skipped, so an interrupted command can be repeated; --force redoes it. Inputs
    that are themselves results of other inputs are left out.
    """
    with exit_on_error(debug=debug):
        if pack is None and network.full_precision is None:
            raise UsageError("no model: give --pack or --full-precision")
        if pack is None and network.checkpoint is not None:
            raise UsageError("--checkpoint: there is no --pack whose source it could be")
        network.check()
        cluster = machines.cluster
        style = results.style
        style.check()
        notes: list[str] = []
        places = [as_place(text) for text in inputs]
        planned = plan_jobs(places, out, style=style, recursive=recursive, note=notes.append)
        if compare is not None:
            check_page(compare, planned, force=force)
        place = None if pack is None else local_pack(pack)
        check_model(
            packs=[] if place is None else [place],
            full_precision=network.full_precision,
            base=base,
            texts=prompts.texts(()),
        )
        captions = prompts.captions(job.source for job in planned)
        if prompts.prompt_dir is not None and len(captions) < len(planned):
            lacking = len(planned) - len(captions)
            notes.append(f"{lacking} of {len(planned)} images have no caption")

        texts = prompts.texts(captions.values())
        records = Records(lambda: common_record(place, network, base, prompts, style), captions)
        batch = Batch(
            ModelChoice(pack, network, base, texts, load_pipeline),
            ImageWork(records, style, network.max_pixels),
            force,
            machines.threads,
            cluster,
        )
        with Screen(len(planned), quiet=json_output) as screen:
            for note in notes:
                screen.say(f"note: {note}")
            outcomes = upscale_jobs(planned, batch, screen)
            done = any(outcome.status == "done" for outcome in outcomes)
            peak = peak_memory(network.device) if done and cluster is None else {}
            if compare is not None:
                from runtime.compare.page import write_comparison

                screen.say(f"before and after: {write_comparison(compare, outcomes)}")
        if json_output:
            page = {} if compare is None else {"compare": str(compare)}
            files = [_as_json(outcome) for outcome in outcomes]
            print_json({"files": files, "peak_memory_bytes": peak, **page})
        else:
            screen.summarize(peak)
        failed = sum(outcome.status == "failed" for outcome in outcomes)
        if failed:
            rest = "" if failed == len(planned) else "the others are finished; "
            raise BatchError(
                f"{failed} of {len(planned)} images failed",
                hint=f"{rest}the same command tries the failed ones again",
            )


def _as_json(outcome: Outcome) -> dict[str, Any]:
    """One entry of ``--json``; its keys are the same for every status."""
    details = outcome.details or {}
    return {
        "input": str(outcome.job.source),
        "output": str(outcome.job.output),
        "status": outcome.status,
        "width_px": details.get("width_px"),
        "height_px": details.get("height_px"),
        "seconds": details.get("seconds"),
        "notes": details.get("notes", []),
        "error": outcome.error or None,
        "exit_code": outcome.exit_code,
    }
