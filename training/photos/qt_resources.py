"""Reads Qt's binary resource files (``.rcc``), in which Debian's GCompris keeps its photos.

All numbers are big-endian. The header is ``qres``, the version, and the offsets of three tables:
the tree, the data, the names; from version 3 on, flags follow. A node of the tree takes 14 bytes
(22 from version 2 on, which append a modification time)::

    name offset u32 | flags u16 | directory: children u32, index of the first child u32
                                | file:      country u16, language u16, data offset u32

A name is ``length u16, hash u32, UTF-16``; data are ``length u32, bytes``. A file's bytes may be
compressed by zlib (after the unpacked length, u32) or by Zstandard. Source: Qt's documentation of
``rcc`` and the format its tool writes (``rcc --binary``).
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"qres"
ZLIB, DIRECTORY, ZSTD = 1, 2, 4
NODE_BYTES = {1: 14, 2: 22, 3: 22}


class QtResourceError(ValueError):
    """The bytes are no readable Qt resource file."""


@dataclass(frozen=True)
class _Node:
    name: str
    flags: int
    children: range
    data_offset: int


class QtResources:
    """The files in one ``.rcc``.

    Args:
        content: the whole resource file.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        version, tree, data, names = self._read(">4I", len(MAGIC))
        if not content.startswith(MAGIC) or version not in NODE_BYTES:
            raise QtResourceError("not a Qt resource file of version 1, 2 or 3")
        self._tree, self._data, self._names = tree, data, names
        self._node_bytes = NODE_BYTES[version]

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Path and unpacked bytes of every file, in the order of the tree."""
        yield from self._walk("", 0, depth=0)

    def _walk(self, folder: str, index: int, *, depth: int) -> Iterator[tuple[str, bytes]]:
        if depth > 64:
            raise QtResourceError("the tree of folders does not end")
        node = self._node(index)
        path = f"{folder}/{node.name}" if folder else node.name
        if node.flags & DIRECTORY:
            for child in node.children:
                yield from self._walk(path, child, depth=depth + 1)
        else:
            yield path, self._unpack(node)

    def _node(self, index: int) -> _Node:
        at = self._tree + index * self._node_bytes
        name_offset, flags, first, second = self._read(">IHII", at)
        if flags & DIRECTORY:
            return _Node(self._name(name_offset), flags, range(second, second + first), 0)
        return _Node(self._name(name_offset), flags, range(0), second)

    def _name(self, offset: int) -> str:
        at = self._names + offset
        (length,) = self._read(">H", at)
        return self._slice(at + 6, 2 * length).decode("utf-16-be") if length else ""

    def _unpack(self, node: _Node) -> bytes:
        at = self._data + node.data_offset
        (length,) = self._read(">I", at)
        stored = self._slice(at + 4, length)
        if node.flags & ZLIB:
            return zlib.decompress(stored[4:])
        if node.flags & ZSTD:
            import zstandard

            return zstandard.ZstdDecompressor().decompressobj().decompress(stored)
        return stored

    def _read(self, layout: str, at: int) -> tuple[int, ...]:
        return struct.unpack(layout, self._slice(at, struct.calcsize(layout)))

    def _slice(self, at: int, length: int) -> bytes:
        part = self._content[at : at + length]
        if len(part) != length:
            raise QtResourceError(f"the file ends before byte {at + length}")
        return part
