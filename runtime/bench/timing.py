"""Candidates take turns, and every time comes with its spread."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Work = Callable[[], object]
Timer = Callable[[Work], float]
"""Seconds that one call of some work takes."""


@dataclass(frozen=True)
class Spread:
    """Seconds of one call.

    Attributes:
        median, lowest, highest: over all rounds.
    """

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Spread":
        """The spread of at least one time."""
        return cls(statistics.median(seconds), min(seconds), max(seconds))


def timer_for(device: torch.device, *, processor_time: bool) -> Timer:
    """How work is timed on a device.

    Args:
        device: where the work runs. On CUDA events on the device tell, and the work is waited for.
        processor_time: count this process's processor time instead of the wall's; on the CPU only,
            and with one thread it is the time that no other program's work disturbs.
    """
    if device.type == "cuda":
        return lambda work: _cuda_seconds(work, device)
    now = time.process_time if processor_time else time.perf_counter
    return lambda work: _seconds(work, now)


def _seconds(work: Work, now: Callable[[], float]) -> float:
    began = now()
    work()
    return now() - began


def _cuda_seconds(work: Work, device: torch.device) -> float:
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def interleaved(
    works: Mapping[str, Work],
    *,
    rounds: int,
    timer: Timer,
    calls: int = 1,
    after_round: Callable[[int], None] = lambda done: None,
) -> dict[str, Spread]:
    """Time every piece of work once a round, so that what disturbs a round meets all alike.

    Args:
        works: warm already, by name.
        rounds: times per work, at least 1.
        timer: of one run.
        calls: how many calls a run makes (`repeated`, `captured`); times are of one call.
        after_round: told how many rounds are over.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds):
        for name, work in works.items():
            seconds[name].append(timer(work) / calls)
        after_round(turn + 1)
    return {name: Spread.of(times) for name, times in seconds.items()}


def captured(work: Work, calls: int) -> Work:
    """``calls`` calls of ``work`` as one CUDA graph, so that no launch counts; warm.

    Raises:
        RuntimeError: ``work`` waits for the device, or memory ran out.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # compiles kernels, and gives libraries their workspace
        for _ in range(2):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # A capture that fails may leave its own stream as the current one: put ours back.
    with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph):
        for _ in range(calls):
            work()
    replay = Replay(graph.replay, work)
    replay()
    return replay


@dataclass(frozen=True)
class Replay:
    """A captured graph with the work it was captured from.

    A graph holds addresses, not tensors: what the work reads has to live as long.

    Attributes:
        launch: replays the graph.
        captured: the work.
    """

    launch: Callable[[], None]
    captured: Work

    def __call__(self) -> None:
        """Replay."""
        self.launch()


def repeated(work: Work, calls: int) -> Work:
    """``calls`` calls of ``work``, one after the other."""
    if calls == 1:
        return work

    def repeat() -> None:
        for _ in range(calls):
            work()

    return repeat
