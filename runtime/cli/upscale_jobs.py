"""The work of ``qrun upscale``: which images are to do, a model for them, one by one or at once.

Heavy imports stand inside the functions that need them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.cli.record import Records
from runtime.cli.screen import Screen
from runtime.cli.upscale_work import ImageWork, ModelChoice, RemoteWork
from runtime.images.batch import Engine, Job, Outcome, run_jobs
from runtime.images.local_engine import in_threads, one_by_one
from runtime.remote.copies import local_copy
from runtime.remote.place import Place
from schemas.errors import ImageError, UsageError

if TYPE_CHECKING:
    from runtime.cluster.session import ClusterOptions


@dataclass(frozen=True)
class Batch:
    """What is done to all images of a command alike.

    Attributes:
        model: that they are enlarged with.
        images: what is done with each.
        force: whether finished results are made anew.
        workers: images done at once, in this process.
        cluster: where they are done instead, or None for this process.
    """

    model: ModelChoice
    images: ImageWork
    force: bool
    workers: int = 1
    cluster: "ClusterOptions | None" = None


def upscale_jobs(jobs: Sequence[Job], batch: Batch, screen: Screen) -> list[Outcome]:
    """Upscale every image that is still to do; load the model if one of them is good.

    Raises:
        UsageError: some results were made with other settings, or several images at once are asked
            for where they are none the faster.
    """
    skip = {} if batch.force else _finished(jobs, batch.images.records, screen)
    todo = [job for job in jobs if job.problem is None and job.output not in skip]
    engine = _local(todo, batch, screen) if batch.cluster is None else _elsewhere(batch)
    return run_jobs(jobs, engine, skip=skip, report=screen.report)


def peak_memory(device: str) -> dict[str, int]:
    """The most memory that a batch took here: "main memory", and "GPU" where one computed -> bytes.

    Args:
        device: that the command named.
    """
    import torch

    from runtime.free_memory import peak_bytes

    devices = {"main memory": torch.device("cpu")}
    if device != "cpu" and torch.cuda.is_available() and torch.cuda.is_initialized():
        devices["GPU"] = torch.device("cuda")
    found = {name: peak_bytes(each) for name, each in devices.items()}
    return {name: peak for name, peak in found.items() if peak is not None}


def _local(todo: Sequence[Job], batch: Batch, screen: Screen) -> Engine:
    """Jobs in this process.

    Raises:
        UsageError: several at once, on a GPU.
    """
    bad = _bad_before_the_first_good(todo, batch.images.max_pixels)
    loaded = [batch.model.load()] if len(bad) < len(todo) else []
    several = batch.workers > 1 and len(todo) > 1
    if several and loaded and loaded[0][0].device.type != "cpu":
        raise UsageError(
            "--jobs: a GPU computes one image after another", hint="leave it out, or --device cpu"
        )

    def work(job: Job) -> dict[str, Any]:
        if job.source in bad:
            raise bad[job.source]
        pipeline, settings = loaded[0]
        return batch.images.do(job, pipeline, settings, None if several else screen.step)

    if several:
        return in_threads(work, batch.workers, _share_of_threads(batch.workers))
    return one_by_one(work)


def _elsewhere(batch: Batch) -> Engine:
    """Jobs in the processes of a cluster, each of which loads the model."""
    from runtime.cluster.ray_engine import on_ray

    assert batch.cluster is not None
    records = batch.images.records.settled()
    images = replace(batch.images, records=records)
    make_work = RemoteWork(batch.model, images, str(records.common["model"]), Path.cwd())
    return on_ray(make_work, batch.cluster, batch.model.network.device)


def _bad_before_the_first_good(jobs: Sequence[Job], max_pixels: int) -> dict[Place, ImageError]:
    """Images that cannot be read, up to the first that can.

    The image library takes a tenth of a second, a model seconds to minutes: where no image is good,
    none is loaded for. The others' headers are read when it is their turn, so that a batch of many
    thousand files begins at once.
    """
    bad: dict[Place, ImageError] = {}
    if jobs:
        from runtime.images.image_io import read_header

        for job in jobs:
            try:
                with local_copy(job.source) as file:
                    read_header(file, max_pixels=max_pixels)
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


def _finished(jobs: Sequence[Job], records: Records, screen: Screen) -> dict[Place, str]:
    """Outputs that need no work, with the reason.

    Raises:
        UsageError: some were made with other settings.
    """
    there = [job for job in jobs if job.problem is None and job.output.exists()]
    if not there:
        return {}
    from runtime.cli.finished import state_of_result

    skip: dict[Place, str] = {}
    others: list[str] = []
    for job in there:
        state, differing = state_of_result(job, records)
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
