"""Layers side by side: threads that each compute with one.

A product's last bits depend on how many threads share it. So every layer is computed by a single
one, and several layers at a time use the other processors: results are the same on any number of
them.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_WORKERS = 8
"""Each holds a layer, at most 100 MB for DiT4SR; beyond, memory is what they would wait for."""


@contextlib.contextmanager
def one_thread() -> Iterator[int]:
    """Have torch compute with one thread while the block runs; gives how many it had."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def load_linear_algebra(device: torch.device | None) -> None:
    """Have torch load what it decomposes matrices with on ``device``, before threads do.

    On a GPU torch loads that part when it is first called, and of two threads that call at once the
    second fails with "lazy wrapper should be called at most once" (pytorch/pytorch#90613).
    """
    if device is not None and device.type == "cuda":
        torch.linalg.eigvalsh(torch.eye(1, device=device))


def in_order(
    function: Callable[[Item], Result], items: Sequence[Item]
) -> Generator[Result, None, None]:
    """``function`` of every item, in the items' order, as many at a time as torch has threads.

    An error of one item is raised when it is its turn; those begun after it are finished, and their
    results dropped.
    """
    with one_thread() as threads:
        workers = min(threads, MOST_WORKERS)
        if workers == 1:
            yield from map(function, items)
            return

        def work(item: Item) -> Result:
            with torch.inference_mode():  # a thread begins without it
                return function(item)

        with ThreadPoolExecutor(workers, thread_name_prefix="layer") as pool:
            running: deque[Future[Result]] = deque()
            try:
                for item in items:
                    running.append(pool.submit(work, item))
                    if len(running) == workers:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                for future in running:
                    future.cancel()
