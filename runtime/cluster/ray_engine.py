"""A batch as a Ray Data stream: rows of jobs through a pool of actors, each with a model in memory.

Ray Data brings what a batch on many machines needs: actors by GPUs or cores, jobs given out as
actors become free, outcomes as they come, a new actor where one died, and its job once more. A job
that was done twice is no harm: results appear whole, and equal ones replace each other.
"""

import logging
import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from runtime.cluster.session import ClusterOptions, cluster, share_of
from runtime.cluster.worker import MakeWork, Reply, Worker
from runtime.images.batch import Engine, Job, Outcome, attempt

logger = logging.getLogger(__name__)


def on_ray(make_work: MakeWork, options: ClusterOptions, device: str) -> Engine:
    """An engine that does jobs on a Ray cluster.

    Args:
        make_work: what every worker does first.
        options: which cluster, and how much of it.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        The engine. It raises `UsageError` and `ResourceError` as `cluster` and `share_of` do.
    """

    def engine(jobs: Sequence[tuple[int, Job]], *, alone: bool) -> Iterator[tuple[int, Outcome]]:
        waiting = {index: job for index, job in jobs if job.problem is None}
        for index, job in jobs:
            if index not in waiting:
                yield index, attempt(job, _nothing, alone=alone)
        if not waiting:
            return
        with cluster(options) as ray:
            for index, reply in _stream(ray, waiting, make_work, options, device, alone=alone):
                for level, line in reply.log:
                    logger.log(level, "%s", line)
                if isinstance(reply.outcome, Exception):
                    raise reply.outcome
                yield index, reply.outcome

    return engine


def _stream(
    ray: Any,
    jobs: dict[int, Job],
    make_work: MakeWork,
    options: ClusterOptions,
    device: str,
    *,
    alone: bool,
) -> Iterator[tuple[int, Reply]]:
    """The replies, as they come."""
    share = share_of(ray, options, device)
    workers = min(share.workers, len(jobs))
    logger.info("%d worker%s on %s, by Ray", workers, "" if workers == 1 else "s", share.device)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    attempts = ray.remote(num_cpus=0)(_Attempts).remote()
    settings = {
        "make_work": make_work,
        "device": share.device,
        "alone": alone,
        "begin": lambda index: ray.get(attempts.begin.remote(index)),
    }
    rows = [{"index": index, "job": pickle.dumps(job)} for index, job in jobs.items()]
    # One row a block: each is given out, done again, and replied to by itself.
    replies = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        Worker,
        fn_constructor_kwargs=settings,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
        **share.resources,
    )
    for row in replies.iter_rows():
        yield int(row["index"]), pickle.loads(row["reply"])


class _Attempts:
    """How often each job was begun; an actor, for what workers count is lost with them."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, index: int) -> int:
        """Count one beginning; how many there are now."""
        self._begun[index] += 1
        return self._begun[index]


def _nothing(_job: Job) -> dict[str, Any]:
    raise AssertionError("a job with a problem is not worked on")
