"""One worker of a cluster: a process that holds a model and does one job after another.

What goes between processes is Python's own pickle of small things: jobs one way, replies the other.
Pictures go by files.
"""

import logging
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runtime.images.batch import Job, Outcome, Work, attempt
from runtime.remote.copies import shown
from schemas.errors import ResourceError

logger = logging.getLogger(__name__)

MakeWork = Callable[[str], Work]
"""Loads a model onto a device, and gives what does a job with it; can be pickled."""

MOST_ATTEMPTS = 4
"""How often a job is begun whose worker dies: one that takes all memory would end all of them."""


@dataclass(frozen=True)
class Reply:
    """What became of one job.

    Attributes:
        outcome: of the job, or the error that ends the batch.
        log: level and text of what was logged meanwhile.
    """

    outcome: Outcome | Exception
    log: tuple[tuple[int, str], ...]


class Worker:
    """Called with rows of a dataset, as Ray Data does it.

    The model is loaded with the first row and not before, so that what is wrong with it comes back
    as a reply, in the words for its user.

    Args:
        make_work: loads the model.
        device: where to.
        alone: whether the batch is of one job.
        begin: counts how often a job was begun, by any worker; told its number.
    """

    def __init__(
        self, make_work: MakeWork, device: str, alone: bool, begin: Callable[[int], int]
    ) -> None:
        self._make_work = make_work
        self._device = device
        self._alone = alone
        self._begin = begin
        self._work: Work | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do the job of one row: ``index`` and ``job`` in, ``index`` and ``reply`` out."""
        kept = _KeptLines()
        runtime = logging.getLogger("runtime")
        runtime.setLevel(logging.INFO)
        runtime.addHandler(kept)
        try:
            outcome = self._attempt(int(row["index"]), pickle.loads(row["job"]))
        finally:
            runtime.removeHandler(kept)
        return {"index": row["index"], "reply": pickle.dumps(Reply(outcome, tuple(kept.lines)))}

    def _attempt(self, index: int, job: Job) -> Outcome | Exception:
        try:
            before = self._begin(index) - 1
            if before >= MOST_ATTEMPTS:
                return attempt(job, _deadly, alone=self._alone)
            if before:
                logger.warning("%s: begun again, for the worker that was at it died", job.source)
            if self._work is None:
                self._work = self._make_work(self._device)
            return attempt(job, self._work, alone=self._alone)
        except Exception as error:  # raised where the command runs
            return error


def _deadly(job: Job) -> dict[str, Any]:
    raise ResourceError(
        f"{job.source}: {MOST_ATTEMPTS} workers died while they were at it",
        hint="their memory may not be enough: fewer --jobs, or a smaller image",
    )


class _KeptLines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, shown(record.getMessage())))
