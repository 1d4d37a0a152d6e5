"""Times of CUDA work: candidates take turns, medians with their spread."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

Work = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """Microseconds of one call.

    Attributes:
        median, lowest, highest: over all rounds.
    """

    median: float
    lowest: float
    highest: float

    def as_dict(self) -> dict[str, float]:
        """For JSON, to a hundredth of a microsecond."""
        return {name: round(value, 2) for name, value in asdict(self).items()}


def captured(calls: Sequence[Work], repeats: int = 1) -> Work:
    """``calls``, one after the other, ``repeats`` times over, as one CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            for call in calls:
                call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            for call in calls:
                call()
    return graph.replay


def interleaved(
    candidates: Mapping[str, Work], *, rounds: int, calls_each: Mapping[str, int] | int = 1
) -> dict[str, Spread]:
    """Time every candidate once per round, so that what disturbs one round meets all alike.

    Args:
        candidates: work by name.
        rounds: times per candidate, after two to warm up.
        calls_each: calls that one run of a candidate makes; times are of one call.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds + 2):
        for name, work in candidates.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            end.synchronize()
            if turn >= 2:
                calls = calls_each if isinstance(calls_each, int) else calls_each[name]
                times[name].append(1e3 * start.elapsed_time(end) / calls)
    return {
        name: Spread(statistics.median(values), min(values), max(values))
        for name, values in times.items()
    }


def as_json(spreads: Mapping[str, Spread]) -> dict[str, Any]:
    """All spreads, ready for JSON."""
    return {name: spread.as_dict() for name, spread in spreads.items()}
