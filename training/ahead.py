"""Makes numbered batches in other processes, in order, while the device trains on earlier ones."""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")

AHEAD = 4
"""Batches that every process makes ahead."""


class _Numbered(Dataset[T], Generic[T]):
    """``make`` of every number of ``numbers`` as a data set."""

    def __init__(self, make: Callable[[int], T], numbers: Sequence[int]) -> None:
        self.make, self.numbers = make, numbers

    def __getitem__(self, index: int) -> T:
        return self.make(self.numbers[index])

    def __len__(self) -> int:
        return len(self.numbers)


def made_ahead(make: Callable[[int], T], numbers: Sequence[int], workers: int) -> Iterator[T]:
    """``make(n)`` for every n of ``numbers``, in order.

    Args:
        make: returns tensors, or tuples of them; it depends on n alone.
        numbers: what is wanted.
        workers: processes that make them; 0 to make each when it is asked for.
    """
    loader = DataLoader(
        _Numbered(make, numbers),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    return iter(loader)
