"""How a batch of images goes on after a failure, and what its outcomes are.

Nothing heavy is imported here.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.files.partial_file import sweep_partial_files
from schemas.error_text import describe_error, one_line
from schemas.errors import CheckpointError, PackError, QPackError, UsageError

DEFAULT_MAX_PIXELS = 100_000_000
"""Largest input that is decoded unasked: 1.2 GB as a tensor, and sixteen times that enlarged."""


@dataclass(frozen=True)
class Job:
    """One image to upscale.

    Attributes:
        source: the input.
        output: where its result goes.
        problem: why this job cannot be done, known before any work; None for a job that can.
    """

    source: Path
    output: Path
    problem: QPackError | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one job.

    Attributes:
        job: the job.
        status: ``done``, ``skipped`` (the output was there already) or ``failed``.
        exit_code: what a run of this job alone would end with.
        error: the message of a failed job, else empty.
        reason: of a skipped job.
        details: what the work function reported, for ``--json``.
    """

    job: Job
    status: str
    exit_code: int = 0
    error: str = ""
    reason: str = ""
    details: dict[str, Any] | None = None


def check_writable(folder: Path) -> None:
    """Make ``folder`` if need be, and write to it: no permission bit tells as surely.

    What earlier commands left there when they were killed is removed.

    Raises:
        UsageError: it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        sweep_partial_files(folder)
    except OSError as error:
        raise UsageError(
            f"{folder}: results cannot be written here ({error.strerror})",
            hint="name a folder of your own with -o",
        ) from error


def run_jobs(
    jobs: Sequence[Job],
    work: Callable[[Job], dict[str, Any]],
    *,
    skip: Mapping[Path, str],
    report: Callable[[Outcome], None],
    workers: int = 1,
    start_worker: Callable[[], None] | None = None,
) -> list[Outcome]:
    """Do every job; a failure is reported and the others go on.

    Args:
        jobs: what to do, in order.
        work: does one job and returns details for the report.
        skip: output -> why it needs no work. Outputs appear whole or not at all, so the same
            command continues where an interrupted one stopped.
        report: called with every outcome as soon as it is known, from this thread.
        workers: how many jobs are done at once, each in a thread of its own.
        start_worker: called first in every such thread.

    Returns:
        One outcome per job, in the order of the jobs.

    Raises:
        PackError, CheckpointError, UsageError: from ``work``: they concern all jobs, not one.
        KeyboardInterrupt: with a message that says how far the batch came.
        Exception: whatever a single job failed with.
    """

    def attempt(job: Job) -> Outcome:
        try:
            if job.problem is not None:
                return _failed(job, job.problem, alone=len(jobs) == 1)
            if job.output in skip:
                return Outcome(job, "skipped", reason=skip[job.output])
            return Outcome(job, "done", details=work(job))
        except (PackError, CheckpointError, UsageError):
            raise
        except Exception as error:
            return _failed(job, error, alone=len(jobs) == 1)

    outcomes: dict[int, Outcome] = {}
    try:
        for index, outcome in _attempts(jobs, attempt, workers, start_worker):
            outcomes[index] = outcome
            report(outcome)
    except KeyboardInterrupt:
        finished = sum(outcome.status != "failed" for outcome in outcomes.values())
        raise KeyboardInterrupt(
            f"{finished} of {len(jobs)} finished; the same command goes on from there"
        ) from None
    return [outcomes[index] for index in range(len(jobs))]


def _attempts(
    jobs: Sequence[Job],
    attempt: Callable[[Job], Outcome],
    workers: int,
    start_worker: Callable[[], None] | None,
) -> Iterator[tuple[int, Outcome]]:
    """Position and outcome of every job, as soon as it is known."""
    if workers == 1:
        yield from enumerate(map(attempt, jobs))
        return
    pool = ThreadPoolExecutor(workers, initializer=start_worker)
    waiting = iter(enumerate(jobs))
    running: dict[Future[Outcome], int] = {}
    try:
        while True:
            # No more than are being done: what is not begun is not done after an interruption.
            for index, job in itertools.islice(waiting, workers - len(running)):
                running[pool.submit(attempt, job)] = index
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _failed(job: Job, error: Exception, *, alone: bool) -> Outcome:
    """The outcome of a job that ended with ``error``, which is raised where there is no other."""
    if alone:
        raise error
    exit_code, _ = describe_error(error)
    return Outcome(job, "failed", exit_code, one_line(error))
