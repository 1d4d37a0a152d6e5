"""Jobs in this process: one after another, or several at once, each in a thread of its own."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from runtime.images.batch import Engine, Job, Outcome, Work, attempt


def one_by_one(work: Work) -> Engine:
    """An engine that does jobs in their order."""

    def engine(jobs: Sequence[tuple[int, Job]], *, alone: bool) -> Iterator[tuple[int, Outcome]]:
        for index, job in jobs:
            yield index, attempt(job, work, alone=alone)

    return engine


def in_threads(work: Work, workers: int, start_worker: Callable[[], None]) -> Engine:
    """An engine that does ``workers`` jobs at once.

    Args:
        work: does one job.
        workers: threads.
        start_worker: called first in every one of them.
    """
    return functools.partial(_in_threads, work, workers, start_worker)


def _in_threads(
    work: Work,
    workers: int,
    start_worker: Callable[[], None],
    jobs: Sequence[tuple[int, Job]],
    *,
    alone: bool,
) -> Iterator[tuple[int, Outcome]]:
    pool = ThreadPoolExecutor(workers, initializer=start_worker)
    waiting = iter(jobs)
    running: dict[Future[Outcome], int] = {}
    try:
        while True:
            # No more than are being done: what is not begun is not done after an interruption.
            for index, job in itertools.islice(waiting, workers - len(running)):
                running[pool.submit(attempt, job, work, alone=alone)] = index
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
