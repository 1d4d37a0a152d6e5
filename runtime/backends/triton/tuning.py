"""Which tile sizes a kernel runs with: a table that ships with the project, nothing timed at start.

``table.json`` maps ``capability/kernel/M/N/K`` to a kernel's configuration. Capability is the
device's, such as 90; a device without a row of its own takes the next smaller one. M is the
smallest bucket that holds the tokens, or else the nearest. N and K may be ``*``. The most exact row
wins. Rows of capability 0 are for Triton's interpreter, where tiles are small so that small tests
have several.

`benchmarks.gpu_check --tune` measures and writes rows.
"""

import itertools
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

TABLE = Path(__file__).with_name("table.json")
M_BUCKETS = (16, 64, 256, 1024, 4096)

Config = Mapping[str, int]
"""A kernel's tile sizes, ``num_warps`` and ``num_stages`` by name."""


def m_bucket(m: int) -> int:
    """The smallest bucket of at least ``m`` tokens, or the largest."""
    return next((bucket for bucket in M_BUCKETS if m <= bucket), M_BUCKETS[-1])


def row_name(capability: int, kernel: str, m: int, n: int | None, k: int | None) -> str:
    """The table's name for a shape; None stands for any."""
    return f"{capability}/{kernel}/{m}/{n or '*'}/{k or '*'}"


@lru_cache(maxsize=1)
def read_table(file: Path | None = None) -> dict[str, Config]:
    """The rows of a table by name; None for the one that ships with the project.

    Raises:
        ValueError: the file is no such table.
    """
    file = file or TABLE
    rows = json.loads(file.read_text())
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise ValueError(f"{file} is no table of kernel configurations")
    return rows


@lru_cache(maxsize=4096)
def config_for(capability: int, kernel: str, m: int, n: int, k: int) -> Config:
    """The configuration of ``kernel`` for ``m`` tokens, ``n`` outputs and ``k`` inputs.

    Raises:
        ValueError: the table has no row for the kernel.
    """
    table = read_table()
    known = sorted({int(name.split("/", 1)[0]) for name in table}, reverse=True)
    wanted = M_BUCKETS.index(m_bucket(m))
    nearest = sorted(M_BUCKETS, key=lambda bucket: abs(M_BUCKETS.index(bucket) - wanted))
    for row in itertools.product(
        (level for level in known if level <= capability),
        nearest,
        ((n, k), (n, None), (None, k), (None, None)),
    ):
        name = row_name(row[0], kernel, row[1], *row[2])
        if name in table:
            return table[name]
    raise ValueError(f"{TABLE.name} has no row for kernel {kernel} on capability {capability}")


def forget() -> None:
    """Read the table anew when next asked: for whoever has just written it."""
    read_table.cache_clear()
    config_for.cache_clear()
