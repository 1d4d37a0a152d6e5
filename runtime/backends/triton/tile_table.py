"""Which tile sizes a kernel runs with: a table, nothing is timed when a network starts.

``table.json`` ships with the project. A user's own file (`tile_table_file.user_file`) lies over it,
row by row; ``qrun tune`` writes it. A row is named ``capability/kernel/M/N/K``. Capability is the
device's, such as 90; a device without a row of its own takes the next smaller one. M is the
smallest bucket that holds the tokens, or else the nearest. N and K may be ``*``. The most exact row
wins. Rows of capability 0 are for Triton's interpreter, where tiles are small so that small tests
have several.
"""

import importlib
import itertools
import logging
from collections.abc import Mapping
from functools import lru_cache

from runtime.backends.triton.tile_table_file import (
    SHIPPED,
    Config,
    capability_of,
    read_file,
    user_file,
)

logger = logging.getLogger(__name__)

M_BUCKETS = (16, 64, 256, 1024, 4096)


def m_bucket(m: int) -> int:
    """The smallest bucket of at least ``m`` tokens, or the largest."""
    return next((bucket for bucket in M_BUCKETS if m <= bucket), M_BUCKETS[-1])


def row_name(capability: int, kernel: str, m: int, n: int | None, k: int | None) -> str:
    """The table's name for a shape; None stands for any."""
    return f"{capability}/{kernel}/{m}/{n or '*'}/{k or '*'}"


@lru_cache(maxsize=1)
def read_table() -> Mapping[str, Config]:
    """The rows in force by name: those that ship with the project, and a user's over them."""
    return {**read_file(SHIPPED).rows, **_user_rows()}


@lru_cache(maxsize=4096)
def config_for(capability: int, kernel: str, m: int, n: int, k: int) -> Config:
    """The configuration of ``kernel`` for ``m`` tokens, ``n`` outputs and ``k`` inputs.

    Raises:
        ValueError: the table has no row for the kernel.
    """
    return read_table()[row_for(capability, kernel, m, n, k)]


def row_for(capability: int, kernel: str, m: int, n: int, k: int) -> str:
    """The name of the row that `config_for` takes.

    Raises:
        ValueError: the table has no row for the kernel.
    """
    table = read_table()
    known = sorted({capability_of(name) for name in table}, reverse=True)
    wanted = M_BUCKETS.index(m_bucket(m))
    nearest = sorted(M_BUCKETS, key=lambda bucket: abs(M_BUCKETS.index(bucket) - wanted))
    for row in itertools.product(
        (level for level in known if level <= capability),
        nearest,
        ((n, k), (n, None), (None, k), (None, None)),
    ):
        name = row_name(row[0], kernel, row[1], *row[2])
        if name in table:
            return name
    raise ValueError(f"{SHIPPED.name} has no row for kernel {kernel} on capability {capability}")


def forget() -> None:
    """Read the table anew when next asked: for whoever has just written it."""
    read_table.cache_clear()
    config_for.cache_clear()


def triton_version() -> str:
    """The version of Triton here, or an empty string without it."""
    try:
        # By name: this module is read on machines that have no Triton.
        return str(importlib.import_module("triton").__version__)
    except ModuleNotFoundError:
        return ""


def _user_rows() -> Mapping[str, Config]:
    """The user's rows, as far as they were measured with the Triton that is here.

    Tiles that fit a device's memory with one version may not with another, and a kernel that does
    not fit ends the run.
    """
    file = user_file()
    if file is None:
        return {}
    try:
        table = read_file(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("tile sizes as shipped: %s", error)
        return {}
    here = triton_version()
    rows = {
        name: row
        for name, row in table.rows.items()
        if (origin := table.measured.get(capability_of(name))) and origin.triton == here
    }
    if len(rows) < len(table.rows):
        logger.warning(
            "%d of %d rows of %s were not measured with Triton %s and are left out; `qrun tune`"
            " measures anew",
            len(table.rows) - len(rows),
            len(table.rows),
            file,
            here or "(missing)",
        )
    return rows
