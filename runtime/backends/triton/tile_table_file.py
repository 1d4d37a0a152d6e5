"""A table of tile sizes as a file: the one that ships with the project, and one that a user made.

    {
      "measured": {"90": {"device": "NVIDIA H100 PCIe", "triton": "3.6.0"}},
      "rows": {
        "90/thin/4096/*/1536": {"BM": 32, "BK": 64, "num_warps": 4, "num_stages": 3}
      }
    }

A row's name is ``capability/kernel/M/N/K``, see `tile_table`. ``measured`` says for a capability
where its rows come from; capabilities without an entry were chosen by hand. A user's rows all have
one.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artifacts.files.user_cache import user_cache
from artifacts.files.whole_file import replacing

SHIPPED = Path(__file__).with_name("table.json")
LOW_RANK = "thin"
"""The file's word for the kernel of the low-rank activations."""
_PRODUCT = ("BN", "BM", "BK", "GROUP", "num_warps", "num_stages")
SETTINGS = {
    "prepare": ("elements", "num_warps", "num_stages", "programs", "maxnreg"),
    LOW_RANK: ("BM", "BK", "num_warps", "num_stages"),
    "product8": _PRODUCT,
    "product_packed": _PRODUCT,
}
"""What a row of a kernel says."""
_BOUNDS = {
    "num_warps": (1, 32),
    "num_stages": (1, 16),
    "GROUP": (1, 64),
    "elements": (16, 65536),
    "programs": (1, 32),
    "maxnreg": (32, 255),
}
_ANY_NUMBER = {"num_stages", "programs", "maxnreg"}
"""What need not be a power of two."""
_TILE_BOUNDS = (16, 1024)
"""Of BN, BM and BK: tensor cores take no smaller ones."""
_THREADS, _REGISTERS = 32, 65536
"""Of a warp, and of a multiprocessor."""
_LARGEST_BYTES = 1 << 20
_NAME = re.compile(r"(\d{1,4})/(\w+)/\d{1,9}/(?:\*|\d{1,9})/(?:\*|\d{1,9})", re.ASCII)

Config = Mapping[str, int]
"""A kernel's tile sizes, ``num_warps`` and ``num_stages`` by name. Of the preparing one also
``programs``, how many a multiprocessor gets, and ``maxnreg``, registers of a thread (255: all)."""


@dataclass(frozen=True)
class Origin:
    """Where the rows of a capability were measured.

    Attributes:
        device: the GPU's name.
        triton: version of Triton.
    """

    device: str
    triton: str


@dataclass(frozen=True)
class Table:
    """The content of a file.

    Attributes:
        rows: configurations by name.
        measured: origin of the rows by capability.
    """

    rows: Mapping[str, Config] = field(default_factory=dict)
    measured: Mapping[int, Origin] = field(default_factory=dict)


def capability_of(name: str) -> int:
    """The capability that a row is for."""
    return int(name.partition("/")[0])


def user_file() -> Path | None:
    """Where a user's own rows lie; None without a home."""
    cache = user_cache()
    # The number goes up when a kernel changes so that rows measured for it are of no use.
    return None if cache is None else cache / "triton-table-2.json"


def read_file(file: Path) -> Table:
    """Read a table and check all of it.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such table.
    """
    # Looked at before opening, which would wait for ever on a pipe.
    if file.exists() and not file.is_file():
        raise ValueError(f"{file} is no table of tile sizes: not a regular file")
    with file.open("rb") as opened:
        data = opened.read(_LARGEST_BYTES + 1)
    try:
        if len(data) > _LARGEST_BYTES:
            raise ValueError(f"longer than {_LARGEST_BYTES} bytes")
        return _table(json.loads(data))
    except (ValueError, RecursionError) as cause:
        raise ValueError(f"{file} is no table of tile sizes: {cause}") from None


def write_rows(file: Path, rows: Mapping[str, Config], capability: int, origin: Origin) -> None:
    """Put ``rows`` of one capability into a file, in the place of those it has; it may be new.

    What was measured for the capability on another device or with another Triton goes; rows for
    any shape stay, because those are chosen by hand. The file appears whole or not at all.

    Raises:
        OSError: it cannot be written.
        ValueError: what is there is no such table.
    """
    table = read_file(file) if file.exists() else Table()
    kept = table.rows
    if table.measured.get(capability, origin) != origin:
        kept = {
            name: row
            for name, row in kept.items()
            if capability_of(name) != capability or name.endswith("/*/*")
        }
    table = Table({**kept, **rows}, {**table.measured, capability: origin})
    measured = {
        str(level): {"device": one.device, "triton": one.triton}
        for level, one in table.measured.items()
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial:
        partial.write_text(
            f'{{\n  "measured": {_lines(measured)},\n  "rows": {_lines(table.rows)}\n}}\n',
            encoding="utf-8",
        )


def _lines(content: Mapping[str, Any]) -> str:
    """An object with one entry per line."""
    if not content:
        return "{}"
    lines = (f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in content.items())
    return "{\n" + ",\n".join(lines) + "\n  }"


def _table(content: Any) -> Table:
    if not isinstance(content, dict) or set(content) != {"measured", "rows"}:
        raise ValueError('it must have "measured" and "rows" and nothing else')
    measured, rows = content["measured"], content["rows"]
    if not isinstance(measured, dict) or not isinstance(rows, dict):
        raise ValueError('"measured" and "rows" must be objects')
    for name, row in rows.items():
        _check_row(name, row)
    return Table(rows, {_level(key): _origin(key, value) for key, value in measured.items()})


def _check_row(name: str, row: Any) -> None:
    found = _NAME.fullmatch(name)
    if found is None or found[2] not in SETTINGS:
        raise ValueError(f"{name[:80]!r} names no row")
    if not isinstance(row, dict) or set(row) != set(SETTINGS[found[2]]):
        raise ValueError(f"row {name} must have {', '.join(SETTINGS[found[2]])}")
    for setting, value in row.items():
        lowest, highest = _BOUNDS.get(setting, _TILE_BOUNDS)
        if type(value) is not int or not lowest <= value <= highest:
            raise ValueError(f"row {name}: {setting} is no number from {lowest} to {highest}")
        if value & value - 1 and setting not in _ANY_NUMBER:
            raise ValueError(f"row {name}: {setting} {value} is no power of two")
    if row["num_warps"] * _THREADS * row.get("maxnreg", 0) > _REGISTERS:
        raise ValueError(f"row {name}: maxnreg leaves no room for num_warps")


def _level(key: str) -> int:
    if not re.fullmatch(r"\d{1,4}", key, re.ASCII):
        raise ValueError(f"{key[:80]!r} is no capability")
    return int(key)


def _origin(key: str, value: Any) -> Origin:
    if (
        not isinstance(value, dict)
        or set(value) != {"device", "triton"}
        or not all(isinstance(text, str) for text in value.values())
    ):
        raise ValueError(f"capability {key}: it must have a device and a version of Triton")
    return Origin(**value)
