"""Squared norms of a matrix's rows, and its rows in parts that fit a processor's cache."""

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_NUMBERS = 2**18
"""1 MiB of float32: what several passes over a part of a weight keep in the cache."""
SAFE_NORMS = (1e-15, 1e18)
"""Norms of float32 rows whose squares neither vanish nor overflow."""


def row_energies(values: Tensor) -> Tensor:
    """Squared norm of every row of ``values`` [rows, n], float64 [rows].

    Norms are taken in the values' own dtype, and where squares would vanish or overflow there, in
    float64, which is several times slower.
    """
    norms = torch.linalg.vector_norm(values, dim=-1)
    smallest, largest = map(float, norms.aminmax())
    if not (SAFE_NORMS[0] < smallest and largest < SAFE_NORMS[1]):
        norms = torch.linalg.vector_norm(values, dim=-1, dtype=torch.float64)
    return norms.double().square()


def energy(values: Tensor) -> float:
    """Squared norm of a matrix [rows, n]."""
    return float(row_energies(values).sum())


def row_chunks(shape: torch.Size) -> Iterator[slice]:
    """Cut a matrix of ``shape`` into runs of rows of about `CHUNK_NUMBERS`."""
    rows, columns = shape
    step = max(1, CHUNK_NUMBERS // max(1, columns))
    for begin in range(0, rows, step):
        yield slice(begin, begin + step)
