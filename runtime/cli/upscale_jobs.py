"""The work of ``qrun upscale``: which images are to do, a model for them, one by one or at once.

Heavy imports stand inside the functions that need them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.cli.screen import Screen
from runtime.images.batch import Job, Outcome, run_jobs
from runtime.images.result_style import ResultStyle
from schemas.errors import ImageError, UsageError

if TYPE_CHECKING:
    from runtime.images.made_with import MadeWith
    from runtime.pipeline import Pipeline
    from runtime.sampling.settings import UpscaleSettings


@dataclass(frozen=True)
class Batch:
    """What is done to all images of a command alike.

    Attributes:
        load: gets the model, and the settings that it is sampled with; called at most once.
        record: what a job's result says of how it was made.
        captions: image -> its own prompt.
        style: of the results.
        max_pixels: an input with more is refused.
        force: whether finished results are made anew.
        workers: images done at once.
    """

    load: "Callable[[], tuple[Pipeline, UpscaleSettings]]"
    record: "Callable[[Job], MadeWith]"
    captions: Mapping[Path, str]
    style: ResultStyle
    max_pixels: int
    force: bool
    workers: int = 1


def upscale_jobs(jobs: Sequence[Job], batch: Batch, screen: Screen) -> list[Outcome]:
    """Upscale every image that is still to do; load the model if one of them is good.

    Raises:
        UsageError: some results were made with other settings, or several images at once are asked
            for where they are none the faster.
    """
    skip = {} if batch.force else _finished(jobs, batch.record, screen)
    todo = [job for job in jobs if job.problem is None and job.output not in skip]
    bad = _bad_before_the_first_good(todo, batch.max_pixels)
    loaded = [batch.load()] if len(bad) < len(todo) else []
    several = batch.workers > 1 and len(todo) > 1
    if several and loaded and loaded[0][0].device.type != "cpu":
        raise UsageError(
            "--jobs: a GPU computes one image after another", hint="leave it out, or --device cpu"
        )

    def work(job: Job) -> dict[str, Any]:
        if job.source in bad:
            raise bad[job.source]
        from runtime.upscale import upscale_file

        pipeline, settings = loaded[0]
        started = time.perf_counter()
        report = upscale_file(
            pipeline,
            job.source,
            job.output,
            settings,
            caption=batch.captions.get(job.source),
            made_with=batch.record(job),
            style=batch.style,
            max_pixels=batch.max_pixels,
            progress=None if several else screen.step,
        )
        return {
            "width_px": report.width,
            "height_px": report.height,
            "seconds": round(time.perf_counter() - started, 3),
            "notes": list(report.notes),
        }

    return run_jobs(
        jobs,
        work,
        skip=skip,
        report=screen.report,
        workers=batch.workers if several else 1,
        start_worker=_share_of_threads(batch.workers) if several else None,
    )


def _bad_before_the_first_good(jobs: Sequence[Job], max_pixels: int) -> dict[Path, ImageError]:
    """Images that cannot be read, up to the first that can.

    The image library takes a tenth of a second, a model seconds to minutes: where no image is good,
    none is loaded for. The others' headers are read when it is their turn, so that a batch of many
    thousand files begins at once.
    """
    bad: dict[Path, ImageError] = {}
    if jobs:
        from runtime.images.image_io import read_header

        for job in jobs:
            try:
                read_header(job.source, max_pixels=max_pixels)
            except ImageError as error:
                bad[job.source] = error
            else:
                break
    return bad


def _share_of_threads(workers: int) -> Callable[[], None]:
    """Gives the calling thread its share of torch's threads."""
    import torch

    share = max(1, torch.get_num_threads() // workers)
    return lambda: torch.set_num_threads(share)


def _finished(
    jobs: Sequence[Job], record: "Callable[[Job], MadeWith]", screen: Screen
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
