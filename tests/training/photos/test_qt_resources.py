"""The reader of Qt resource files, on files made by hand."""

import struct
import zlib

import pytest

from training.photos.qt_resources import QtResourceError, QtResources

DIRECTORY, ZLIB = 2, 1


def name(text):
    return struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")


def resource_file(version):
    """Root folder ``/`` with ``a/one.txt`` plain and ``a/two.txt`` compressed by zlib."""
    names = b"".join(name(text) for text in ("", "a", "one.txt", "two.txt"))
    at = {"": 0, "a": 6, "one.txt": 14, "two.txt": 34}
    packed = struct.pack(">I", 400) + zlib.compress(b"two" * 100)
    data = struct.pack(">I", 3) + b"one" + struct.pack(">I", len(packed)) + packed
    time = b"" if version == 1 else bytes(8)
    tree = b"".join(
        node + time
        for node in (
            struct.pack(">IHII", at[""], DIRECTORY, 1, 1),
            struct.pack(">IHII", at["a"], DIRECTORY, 2, 2),
            struct.pack(">IHHHI", at["one.txt"], 0, 0, 0, 0),
            struct.pack(">IHHHI", at["two.txt"], ZLIB, 0, 0, 7),
        )
    )
    head = 20 if version < 3 else 24
    offsets = (head, head + len(tree), head + len(tree) + len(data))
    header = struct.pack(">4s4I", b"qres", version, *offsets) + bytes(head - 20)
    return header + tree + data + names


@pytest.mark.parametrize("version", [1, 2, 3])
def test_files_are_read_plain_and_compressed(version):
    found = dict(QtResources(resource_file(version)).files())
    assert found == {"a/one.txt": b"one", "a/two.txt": b"two" * 100}


def test_other_files_and_versions_are_refused():
    with pytest.raises(QtResourceError, match="version"):
        QtResources(b"PNG?" + bytes(40))
    with pytest.raises(QtResourceError, match="version"):
        QtResources(b"qres" + struct.pack(">4I", 9, 20, 20, 20))


@pytest.mark.parametrize("length", [3, 30, 70, 100])
def test_a_cut_file_is_refused(length):
    with pytest.raises(QtResourceError):
        list(QtResources(resource_file(2)[:length]).files())


def test_a_folder_that_holds_itself_is_refused():
    loop = struct.pack(">IHII", 0, DIRECTORY, 1, 0) + bytes(8)
    content = struct.pack(">4s4I", b"qres", 2, 20, 42, 42) + loop + name("")
    with pytest.raises(QtResourceError, match="does not end"):
        list(QtResources(content).files())
