"""How a batch of images goes on after a failure, and what its outcomes are.

Nothing heavy is imported here.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from artifacts.files.partial_file import sweep_partial_files
from runtime.remote.place import Place, RemotePath, remote_errors
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

    source: Place
    output: Place
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


Work = Callable[[Job], dict[str, Any]]
"""Does one job and returns details for the report."""


def check_writable(folder: Place) -> None:
    """Make ``folder`` if need be, and write to it: no permission bit tells as surely.

    What earlier commands left there when they were killed is removed.

    Folders behind URLs are made where there is such a thing; object stores are not tried out.

    Raises:
        UsageError: it cannot be written to.
    """
    if isinstance(folder, RemotePath):
        if not folder.at_once:
            with remote_errors(folder):
                folder.store.makedirs(folder.url, exist_ok=True)
        return
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


class Engine(Protocol):
    """Where jobs are done: `runtime.images.local_engine`, `runtime.cluster`."""

    def __call__(
        self, jobs: Sequence[tuple[int, Job]], *, alone: bool
    ) -> Iterator[tuple[int, Outcome]]:
        """Do jobs and give their outcomes, as soon as they are known, in any order.

        Args:
            jobs: each with a number of its own, which comes back with its outcome.
            alone: as `attempt` takes it.
        """


def attempt(job: Job, work: Work, *, alone: bool) -> Outcome:
    """Do one job.

    Args:
        job: what to do.
        work: does it, and returns details for the report.
        alone: whether there is no other, so that its error is the batch's.

    Returns:
        How it ended.

    Raises:
        PackError, CheckpointError, UsageError: from ``work``: they concern all jobs, not one.
        Exception: whatever a job that is alone failed with.
    """
    try:
        if job.problem is not None:
            raise job.problem
        return Outcome(job, "done", details=work(job))
    except Exception as error:
        concerns_all = isinstance(error, PackError | CheckpointError | UsageError)
        if alone or (concerns_all and error is not job.problem):
            raise
        exit_code, _ = describe_error(error)
        return Outcome(job, "failed", exit_code, one_line(error))


def run_jobs(
    jobs: Sequence[Job],
    engine: Engine,
    *,
    skip: Mapping[Place, str],
    report: Callable[[Outcome], None],
) -> list[Outcome]:
    """Do every job; a failure is reported and the others go on.

    Args:
        jobs: what to do, in order.
        engine: does them.
        skip: output -> why it needs no work. Outputs appear whole or not at all, so the same
            command continues where an interrupted one stopped.
        report: called with every outcome as soon as it is known, from this thread; first with
            those that need no work.

    Returns:
        One outcome per job, in the order of the jobs.

    Raises:
        PackError, CheckpointError, UsageError: what concerns all jobs, not one.
        KeyboardInterrupt: with a message that says how far the batch came.
        Exception: whatever a single job failed with.
    """
    outcomes: dict[int, Outcome] = {}
    todo = []
    try:
        for index, job in enumerate(jobs):
            if job.problem is None and job.output in skip:
                outcomes[index] = Outcome(job, "skipped", reason=skip[job.output])
                report(outcomes[index])
            else:
                todo.append((index, job))
        for index, outcome in engine(todo, alone=len(jobs) == 1):
            outcomes[index] = outcome
            report(outcome)
    except KeyboardInterrupt:
        finished = sum(outcome.status != "failed" for outcome in outcomes.values())
        raise KeyboardInterrupt(
            f"{finished} of {len(jobs)} finished; the same command goes on from there"
        ) from None
    return [outcomes[index] for index in range(len(jobs))]
