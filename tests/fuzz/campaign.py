"""Many cases over several workers; one that dies is replaced, and its last case has failed."""

import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.fuzz.case import Target
from tests.fuzz.judge import FAILED, Verdict
from tests.fuzz.limits import CPU_S
from tests.fuzz.tally import Failure, Tally
from tests.fuzz.worker import NOT_READY, make_case, work

BLOCKED_S = 120.0
"""A case that uses no processor time for so long waits for ever."""
_POLL_S = 1.0
_FORK = multiprocessing.get_context("fork")


@dataclass
class _Job:
    """Some of the cases, and the worker that runs them now.

    Attributes:
        indices: what is left to do, in order.
        seen: the case that was running at the last look and the processor time used until then,
            and when both were first seen.
    """

    indices: Sequence[int]
    folder: Path
    process: BaseProcess | None = None
    reports: Connection | None = None
    current: Any = field(default_factory=lambda: _FORK.RawValue("q", NOT_READY))
    seen: tuple[tuple[int, float], float] = ((NOT_READY, 0.0), 0.0)
    blocked: bool = False


def run_campaign(
    make_target: Callable[[], Target],
    seed: int,
    indices: Sequence[int],
    *,
    jobs: int = 1,
    blocked_s: float = BLOCKED_S,
    progress: Callable[[Tally], None] = lambda _: None,
) -> Tally:
    """Run all cases and count what became of them."""
    total = Tally()
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_memory_disk()) as scratch:
        running = [
            _Job(indices[number::jobs], Path(scratch) / str(number)) for number in range(jobs)
        ]
        for job in running:
            _start(job, make_target, seed)
        while running:
            wait([job.reports for job in running if job.reports is not None], _POLL_S)
            for job in list(running):
                _receive(job, total)
                if job.process is None or job.process.is_alive():
                    _watch(job, blocked_s)
                    continue
                _receive(job, total)
                if job.indices and job.process.exitcode != 0:
                    _bury(job, total)
                if job.indices:
                    _start(job, make_target, seed)
                else:
                    running.remove(job)
            progress(total)
    total.failures.sort(key=lambda failure: failure.index)
    return total


def save_failure(
    make_target: Callable[[], Target], seed: int, failure: Failure, folder: Path
) -> Path:
    """Write the input of a failed case into a folder of its own below ``folder``."""
    target = make_target()
    place = folder / f"{target.name}-{seed}-{failure.index}"
    shutil.rmtree(place, ignore_errors=True)

    def save() -> None:
        with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_memory_disk()) as scratch:
            target.prepare(Path(scratch))
            case = make_case(target, seed, failure.index)
            for name, content in case.files.items():
                file = place / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            note = f"{failure.name}: {failure.text}\nmutated: {case.what}\noption: {case.option}\n"
            (place / "FAILURE.txt").write_text(note)

    place.mkdir(parents=True)
    process = _FORK.Process(target=save)
    process.start()
    process.join()
    return place


def _memory_disk() -> str | None:
    """Where files are cheap, if the system has such a place."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _start(job: _Job, make_target: Callable[[], Target], seed: int) -> None:
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir()
    job.current.value = NOT_READY
    job.seen, job.blocked = ((NOT_READY, 0.0), time.monotonic()), False
    job.reports, sending = _FORK.Pipe(duplex=False)
    job.process = _FORK.Process(
        target=work, args=(make_target(), seed, job.indices, job.folder, job.current, sending)
    )
    job.process.start()
    sending.close()


def _receive(job: _Job, total: Tally) -> None:
    """Take over all reports that have come."""
    try:
        while job.reports is not None and job.reports.poll():
            done, tally = job.reports.recv()
            total.merge(tally)
            job.indices = job.indices[done:]
    except EOFError:
        job.reports = None


def _watch(job: _Job, blocked_s: float) -> None:
    """End a worker whose case neither ends nor uses the processor."""
    assert job.process is not None
    now, state = time.monotonic(), (job.current.value, _cpu_s(job.process))
    if job.seen[0] != state:
        job.seen = (state, now)
    elif now > job.seen[1] + blocked_s:
        job.blocked = True
        job.process.kill()


def _cpu_s(process: BaseProcess) -> float:
    """Processor time of a child in seconds; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _bury(job: _Job, total: Tally) -> None:
    """Count the case that ended its worker; those before it since its last report run again."""
    index, code = job.current.value, job.process.exitcode if job.process else None
    if index == NOT_READY:
        said = (job.folder / "stderr").read_text(errors="replace")
        raise RuntimeError(f"a worker ended before its first case (exit code {code}): {said}")
    if job.blocked:
        verdict = Verdict(FAILED, "blocked", "waits without using the processor")
    elif code == -signal.SIGPROF:
        verdict = Verdict(FAILED, "slow", f"more than {CPU_S} s of processor time")
    else:
        said = (job.folder / "stderr").read_text(errors="replace")
        verdict = Verdict(FAILED, "crash", f"exit code {code}: {said[-300:]}")
    total.add(index, "?", verdict, 0.0, 0)
    job.indices = [left for left in job.indices if left != index]
