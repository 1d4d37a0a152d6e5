"""``qrun upscale``: images to images four times as large.

Heavy imports stand inside the functions that need them, so that ``--help`` and a mistyped path are
answered at once.
"""

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from artifacts.cli.exit_codes import exit_on_error
from artifacts.cli.output import print_json
from runtime.cli.model import BaseOptions, NetworkOptions, PromptOptions
from runtime.cli.options import Debug, Json
from runtime.cli.record import common_record, record_of
from runtime.cli.screen import Screen
from runtime.images.batch import Job, Outcome, run_jobs
from runtime.images.job_plan import plan_jobs
from schemas.errors import BatchError, ImageError, UsageError

if TYPE_CHECKING:
    from runtime.cli.model import ModelCheck
    from runtime.images.made_with import MadeWith
    from runtime.loader import Loader
    from runtime.pipeline import Pipeline
    from runtime.sampling.settings import UpscaleSettings

UPSCALE_EXAMPLE = """
Examples:

qrun upscale photo.jpg --pack model.qpack

qrun upscale photos/ --pack model.qpack -o upscaled/ --steps 20

qrun upscale photos/ --pack model.qpack --base sd3.5-medium/ --prompt-dir captions/
"""


def upscale(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT", help="Images, or folders of images.")
    ],
    *,
    pack: Annotated[Path | None, typer.Option(help="The .qpack folder to run.")] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "-o", "--out", help="A folder; for one input also a file. Default: beside the input."
        ),
    ] = None,
    network: NetworkOptions,
    base: BaseOptions,
    prompts: PromptOptions,
    force: Annotated[bool, typer.Option("--force", help="Redo finished outputs.")] = False,
    json_output: Json = False,
    debug: Debug = False,
    load_pipeline: "Loader",
    check_model: "ModelCheck",
) -> None:
    """Upscale images by four.

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
        notes: list[str] = []
        jobs = plan_jobs(inputs, out, note=notes.append)
        check_model(
            packs=[] if pack is None else [pack], full_precision=network.full_precision, base=base
        )
        captions = prompts.captions(job.source for job in jobs)
        if prompts.prompt_dir is not None and len(captions) < len(jobs):
            notes.append(f"{len(jobs) - len(captions)} of {len(jobs)} images have no caption")

        def load() -> "tuple[Pipeline, UpscaleSettings]":
            from runtime.sampling.table_steps import check_table_steps

            pipeline = load_pipeline(
                pack=pack,
                full_precision=network.full_precision,
                variant=network.variant,
                base=base.files,
                texts=prompts.texts(captions.values()),
                checkpoint=network.checkpoint,
                device=network.device,
                dtype=network.dtype,
                backend=network.backend,
            )
            if network.activation_bits is not None:
                pipeline = pipeline.with_activation_bits(network.activation_bits)
            settings = network.sampling.settings(
                pipeline.sampling,
                patch_size=pipeline.patch_size,
                largest_tile=pipeline.largest_tile,
            )
            check_table_steps(pipeline.table, settings)
            return pipeline, settings

        # Asked for only when there are results, or a model has been loaded: it reads the pack.
        common = functools.cache(lambda: common_record(pack, network, base, prompts))
        with Screen(len(jobs), quiet=json_output) as screen:
            for note in notes:
                screen.say(f"note: {note}")
            outcomes = _upscale_jobs(
                jobs,
                load,
                lambda job: record_of(common(), job.source, captions.get(job.source)),
                captions,
                screen,
                max_pixels=network.max_pixels,
                force=force,
            )
        if json_output:
            print_json({"files": [_as_json(outcome) for outcome in outcomes]})
        failed = sum(outcome.status == "failed" for outcome in outcomes)
        if failed:
            raise BatchError(
                f"{failed} of {len(jobs)} images failed",
                hint="the others are finished; the same command tries the failed ones again",
            )


def _upscale_jobs(
    jobs: list[Job],
    load: "Callable[[], tuple[Pipeline, UpscaleSettings]]",
    record: "Callable[[Job], MadeWith]",
    captions: Mapping[Path, str],
    screen: Screen,
    *,
    max_pixels: int,
    force: bool,
) -> list[Outcome]:
    """Check every image that is still to do, load the model if one is good, and upscale."""
    loaded: list[tuple[Pipeline, UpscaleSettings]] = []
    bad: dict[Path, ImageError] = {}
    skip = {} if force else _finished(jobs, record, screen)
    todo = [job for job in jobs if job.problem is None and job.output not in skip]
    if todo:
        # The image library takes a tenth of a second, the model's seconds to minutes: bad images
        # are told first, and if all are bad there is nothing to load a model for.
        from runtime.images.image_io import read_header

        for job in todo:
            try:
                read_header(job.source, max_pixels=max_pixels)
            except ImageError as error:
                bad[job.source] = error
        if len(bad) < len(todo):
            loaded.append(load())

    def work(job: Job) -> dict[str, Any]:
        from runtime.upscale import upscale_file

        if job.source in bad:
            raise bad[job.source]
        pipeline, settings = loaded[0]
        started = time.perf_counter()
        report = upscale_file(
            pipeline,
            job.source,
            job.output,
            settings,
            caption=captions.get(job.source),
            made_with=record(job),
            max_pixels=max_pixels,
            progress=screen.step,
        )
        return {
            "width_px": report.width,
            "height_px": report.height,
            "seconds": round(time.perf_counter() - started, 3),
            "notes": list(report.notes),
        }

    return run_jobs(jobs, work, skip=skip, report=screen.report)


def _finished(
    jobs: list[Job], record: "Callable[[Job], MadeWith]", screen: Screen
) -> dict[Path, str]:
    """Outputs that need no work, with the reason.

    Raises:
        UsageError: some were made with other settings.
    """
    there = [job for job in jobs if job.problem is None and job.output.exists()]
    if not there:
        return {}
    from runtime.images.made_with import state_of

    skip: dict[Path, str] = {}
    others: list[str] = []
    for job in there:
        state, differing = state_of(job.output, record(job))
        if state == "different":
            others.append(f"{job.output}: {differing}")
        elif state == "unreadable":
            screen.say(f"note: {job.output} is no picture that can be read, and is made anew")
        elif state == "unknown":
            skip[job.output] = "exists, and does not say how it was made"
        else:
            skip[job.output] = "exists"
    if others:
        raise UsageError(
            f"{len(others)} of {len(there)} results were made with other settings: {others[0]}",
            hint="--force makes them anew; another -o keeps them",
        )
    return skip


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
