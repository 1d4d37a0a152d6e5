"""The process in which cases run, so that one that hangs or crashes ends it and nothing else."""

import gc
import os
import random
import time
import warnings
from collections.abc import Sequence
from ctypes import c_longlong
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzz.case import Case, Target
from tests.fuzz.judge import FAILED, Verdict, judge
from tests.fuzz.limits import (
    GROWN_BYTES,
    MEMORY_BYTES,
    MemoryMeter,
    limit_process,
    start_clock,
    stop_clock,
)
from tests.fuzz.tally import MIB, Tally

NOT_READY = -1
_REPORT_S = 2.0


def make_case(target: Target, seed: int, index: int) -> Case:
    """The case of that number, always the same."""
    return target.make(random.Random(f"{target.name} {seed} {index}"), index)


def work(
    target: Target,
    seed: int,
    indices: Sequence[int],
    folder: Path,
    current: "c_longlong",
    reports: Connection,
) -> None:
    """Run cases, and report a tally with the number of cases done, now and then and at the end.

    Ends early, with exit code 0, when the process has grown.
    """
    os.dup2(os.open(folder / "stderr", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND), 2)
    warnings.simplefilter("always")  # each is output on stderr, and that is looked at
    inputs = folder / "inputs"
    inputs.mkdir()
    target.prepare(inputs)
    gc.collect()
    gc.freeze()  # what the libraries hold is not searched again and again
    limit_process()
    meter = MemoryMeter()
    tally, done, reported = Tally(), 0, time.monotonic()
    for index in indices:
        current.value = index
        case = make_case(target, seed, index)
        meter.start()
        started = time.process_time()
        start_clock()
        verdict = judge(target, case)
        stop_clock()
        cpu_s, memory = time.process_time() - started, meter.reading()
        if memory > MEMORY_BYTES and verdict.kind != FAILED:
            verdict = Verdict(FAILED, "memory", f"{memory / MIB:.0f} MiB above the baseline")
        tally.add(index, case.what, verdict, cpu_s, memory)
        done += 1
        if meter.grown > GROWN_BYTES:
            break  # what is left is another worker's
        if time.monotonic() > reported + _REPORT_S:
            reports.send((done, tally))
            tally, done, reported = Tally(), 0, time.monotonic()
    reports.send((done, tally))
    reports.close()
    os._exit(0)  # libraries' own threads need not be waited for
