"""Whether a TIFF holds all of its picture, told by its first directory.

libtiff fills in what a damaged file lacks (strips, tiles, tables for decoding them) as if it were
there. Tags and types are those of TIFF 6.0 and of BigTIFF.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

MAX_TAGS = 4096
"""Tags after these are not looked at."""

MAX_VALUES = 1 << 22
"""A directory with longer lists is not looked into: a thousand million pixels in smallest tiles."""

_TYPES = {1: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}
"""Field types that hold the tags below: BYTE, SHORT, LONG, UNDEFINED, LONG8."""

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES = 256, 257, 258, 259, 262, 277
_ROWS_PER_STRIP, _PLANES, _TILE_WIDTH, _TILE_HEIGHT, _JPEG_TABLES = 278, 284, 322, 323, 347
_STRIPS, _TILES = (273, 279), (324, 325)
_WANTED = {
    *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, *_STRIPS, *_TILES),
    *(_ROWS_PER_STRIP, _PLANES, _TILE_WIDTH, _TILE_HEIGHT, _JPEG_TABLES),
}
_UNCOMPRESSED, _SEPARATE_PLANES, _YCBCR = 1, 2, 6


@dataclass(frozen=True)
class TiffTags:
    """Tags of the first directory.

    Attributes:
        values: tag -> its values.
        size_bytes: of the file.
        lacks_values: whether the values of a tag lie behind the end of the file.
    """

    values: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    size_bytes: int = 0
    lacks_values: bool = False

    @property
    def lacks_data(self) -> bool:
        """Whether strips or tiles are missing, too short, or end behind the end of the file."""
        if not self.values:  # nothing that can be read: libtiff says what is wrong
            return False
        tiled = _TILES[0] in self.values
        offsets, counts = (self.values.get(tag, ()) for tag in (_TILES if tiled else _STRIPS))
        if self.lacks_values or len(offsets) < self._chunks(tiled=tiled):
            return True
        # Without counts, or with zeros for them, libtiff makes them up from the offsets.
        if 0 < sum(counts) < self._least_bytes():
            return True
        spans = zip(offsets, counts, strict=False)
        return any(offset + count > self.size_bytes for offset, count in spans)

    def _chunks(self, *, tiled: bool) -> int:
        """How many strips or tiles the picture is made of."""
        width, height = self._first(_WIDTH, 0), self._first(_HEIGHT, 0)
        if tiled:
            across = math.ceil(width / max(self._first(_TILE_WIDTH, 0), 1))
            down = math.ceil(height / max(self._first(_TILE_HEIGHT, 0), 1))
        else:
            across, down = 1, math.ceil(height / max(self._first(_ROWS_PER_STRIP, height), 1))
        separate = self._first(_PLANES, 1) == _SEPARATE_PLANES
        return across * down * (self._first(_SAMPLES, 1) if separate else 1)

    def _least_bytes(self) -> int:
        """How many bytes the pixels take at least, where that is known."""
        subsampled = self._first(_PHOTOMETRIC, 1) == _YCBCR
        if subsampled or self._first(_COMPRESSION, 1) != _UNCOMPRESSED:
            return 0
        row_bits = self._first(_WIDTH, 0) * self._first(_SAMPLES, 1) * self._first(_BITS, 1)
        return self._first(_HEIGHT, 0) * row_bits // 8

    def _first(self, tag: int, default: int) -> int:
        return next(iter(self.values.get(tag, ())), default)


def read_tiff_tags(path: Path) -> TiffTags:
    """Read the tags that `TiffTags` needs; what cannot be read is missing from the result.

    Raises:
        OSError: from the file system.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        try:
            values, lacks_values = _read_directory(file, size)
            return TiffTags(values, size, lacks_values)
        except (struct.error, OverflowError, ValueError):  # cut short, or offsets out of range
            return TiffTags(size_bytes=size)


def _read_directory(file: BinaryIO, size: int) -> tuple[dict[int, tuple[int, ...]], bool]:
    """Return the tags, and whether the values of one lie behind the end of the file."""

    def read(layout: str, at: int) -> tuple[int, ...]:
        file.seek(at)
        return struct.unpack(order + layout, file.read(struct.calcsize(order + layout)))

    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    big = read("H", 2)[0] == 43
    offset_type = "Q" if big else "I"
    directory = read(offset_type, 8 if big else 4)[0]
    (entries,) = read("Q" if big else "H", directory)
    entry_bytes, first_entry, inline_bytes = (20, 8, 8) if big else (12, 2, 4)
    found = {}
    lacks_values = False
    for index in range(min(entries, MAX_TAGS)):
        at = directory + first_entry + index * entry_bytes
        tag, field_type = read("HH", at)
        (count,) = read(offset_type, at + 4)
        layout = _TYPES.get(field_type)
        if tag not in _WANTED or layout is None:
            continue
        if count > MAX_VALUES:
            return {}, False
        value_at = at + 4 + struct.calcsize(f"={offset_type}")
        value_bytes = count * struct.calcsize(f"={layout}")
        if value_bytes > inline_bytes:
            (value_at,) = read(offset_type, value_at)
        if value_at + value_bytes <= size:
            found[tag] = read(f"{count}{layout}", value_at)
        else:
            lacks_values = True
    return found, lacks_values
