"""Which files an upscale reads and writes, and how a batch of them goes on after a failure.

Everything that can be known from names and folders alone is checked by `plan_jobs`, before a model
is loaded. Nothing heavy is imported here, so a mistyped path is answered at once.
"""

import os
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.images.folder import OUTPUT_SUFFIXES, images_in
from schemas.error_text import describe_error, one_line
from schemas.errors import CheckpointError, PackError, UsageError

DEFAULT_MAX_PIXELS = 100_000_000
"""Largest input that is decoded unasked: 1.2 GB as a tensor, and sixteen times that enlarged."""

MAX_NAME_BYTES = 255
"""Longest file name of the usual file systems."""


@dataclass(frozen=True)
class Job:
    """One image to upscale."""

    source: Path
    output: Path


@dataclass(frozen=True)
class Outcome:
    """What became of one job.

    Attributes:
        job: the job.
        status: ``done``, ``skipped`` (the output was there already) or ``failed``.
        exit_code: what a run of this job alone would end with.
        error: the message of a failed job, else empty.
        details: what the work function reported, for ``--json``.
    """

    job: Job
    status: str
    exit_code: int = 0
    error: str = ""
    details: dict[str, Any] | None = None


def plan_jobs(inputs: Sequence[Path], out: Path | None) -> list[Job]:
    """Decide what is read and what is written.

    A folder stands for the images in it, by extension, not deeper. A result is named
    ``<stem>_x4.png`` and lies beside its input, or in the folder ``out``; with a single input,
    ``out`` may be the file itself. A file that is the result of another input of the same command
    is no input: so ``qrun upscale *.png`` can be repeated.

    Args:
        inputs: files, folders, or patterns such as ``*.png`` that the shell left alone.
        out: a folder (made if need be) or, where it has an image's extension, a file; None for
            beside the inputs.

    Returns:
        At least one job, in the order of the inputs.

    Raises:
        UsageError: an input is missing or is no image, a name cannot be used, two results share a
            name, a result would replace an input, or its folder cannot be written to.
    """
    sources = _unique(path for given in inputs for path in _expand(given))
    if out is not None and _names_a_file(out):
        if len(sources) != 1:
            raise UsageError(
                f"{out} is one file, but there are {len(sources)} inputs", hint="name a folder"
            )
        jobs = [Job(sources[0], out)]
    else:
        jobs = [Job(source, _result_path(source, out)) for source in sources]
        results = {_key(job.output) for job in jobs}
        jobs = [job for job in jobs if _key(job.source) not in results]

    _check_names(jobs)
    for folder in _unique(job.output.parent for job in jobs):
        check_writable(folder)
    return jobs


def _expand(given: Path) -> list[Path]:
    """Return the files that one argument stands for; at least one."""
    _check_encodable(given)
    if given.is_dir():
        return images_in(given)
    if given.exists():
        return [given]
    if any(sign in given.name for sign in "*?["):
        found = sorted(path for path in given.parent.glob(given.name) if path.is_file())
        if found:
            return found
        raise UsageError(f"{given}: no file matches")
    raise UsageError(f"{given}: no such file or folder")


def _names_a_file(out: Path) -> bool:
    """Whether ``-o`` means a file."""
    return out.suffix.lower() in OUTPUT_SUFFIXES and not out.is_dir()


def _result_path(source: Path, folder: Path | None) -> Path:
    return (source.parent if folder is None else folder) / f"{source.stem}_x4.png"


def _key(path: Path) -> str:
    """What makes two paths the same file: resolved, and one of Unicode's ways to write it.

    Some file systems take the composed and the decomposed form of a letter for one name.
    """
    return unicodedata.normalize("NFC", str(path.resolve()))


def _unique(paths: Iterable[Path]) -> list[Path]:
    """Return the paths without repetitions, in their order."""
    return list({_key(path): path for path in paths}.values())


def _check_names(jobs: Sequence[Job]) -> None:
    """Refuse names that cannot be used, results that collide, and results on top of inputs."""
    source_keys = {_key(job.source): job.source for job in jobs}
    taken: dict[str, Job] = {}
    for job in jobs:
        for path in (job.source, job.output):
            _check_encodable(path)
        if len(os.fsencode(job.output.name)) > MAX_NAME_BYTES:
            raise UsageError(
                f"{job.output}: the name is longer than {MAX_NAME_BYTES} bytes",
                hint="name the result with -o",
            )
        if job.output.is_dir():
            raise UsageError(f"{job.output} is a folder, where the result of {job.source} would go")
        key = _key(job.output)
        if key in taken:
            raise UsageError(
                f"{taken[key].source} and {job.source} would both be written to {job.output}",
                hint="upscale them in two runs, into two folders",
            )
        if key in source_keys:
            raise UsageError(
                f"{job.output} is an input and would be replaced by a result",
                hint="choose another -o",
            )
        taken[key] = job


def _check_encodable(path: Path) -> None:
    """Refuse a name whose bytes are not text: the image library takes UTF-8 alone."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{str(path)!a}: the name is not valid Unicode", hint="rename the file"
        ) from error


def check_writable(folder: Path) -> None:
    """Make ``folder`` if need be, and write to it: no permission bit tells as surely."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"{folder}: results cannot be written here ({error.strerror})",
            hint="name a folder of your own with -o",
        ) from error


def run_jobs(
    jobs: Sequence[Job],
    work: Callable[[Job], dict[str, Any]],
    *,
    force: bool,
    report: Callable[[Outcome], None],
) -> list[Outcome]:
    """Do every job; a failure is reported and the next job starts.

    A job whose output exists is skipped unless ``force``: outputs appear whole or not at all, so
    the same command continues where an interrupted one stopped.

    Args:
        jobs: what to do, in order.
        work: does one job and returns details for the report.
        force: redo finished outputs.
        report: called with every outcome as soon as it is known.

    Raises:
        PackError, CheckpointError, UsageError: from ``work``: they concern all jobs, not one.
        KeyboardInterrupt: with a message that says how far the batch came.
    """
    outcomes: list[Outcome] = []
    for job in jobs:
        try:
            if job.output.exists() and not force:
                outcome = Outcome(job, "skipped")
            else:
                outcome = Outcome(job, "done", details=work(job))
        except (PackError, CheckpointError, UsageError):
            raise
        except KeyboardInterrupt:
            finished = sum(outcome.status != "failed" for outcome in outcomes)
            raise KeyboardInterrupt(
                f"{finished} of {len(jobs)} finished; the same command goes on from there"
            ) from None
        except Exception as error:
            if len(jobs) == 1:
                raise
            exit_code, _ = describe_error(error)
            outcome = Outcome(job, "failed", exit_code, one_line(error))
        outcomes.append(outcome)
        report(outcome)
    return outcomes
