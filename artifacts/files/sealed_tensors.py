"""Tensors in a safetensors file that says itself whether it is whole, and what it belongs to.

For what an interrupted command leaves to the next: the file's metadata hold a SHA-256 over its
subject, a note, and every tensor's name, dtype, shape and bytes. A damaged file, or one of another
subject, is refused, and its content made anew.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from artifacts.files.safetensors_io import (
    Entry,
    Header,
    TensorSpec,
    read_header,
    tensor_bytes,
    write_safetensors,
)
from artifacts.files.whole_file import replacing
from schemas.errors import PackError

_RECORD = "record"
_DIGEST = "sha256"


@dataclass(frozen=True, eq=False)
class SealedTensors:
    """What a file holds.

    Attributes:
        header: of the file, to read its tensors from again.
        record: the note beside them.
        tensors: by name.
    """

    header: Header
    record: str
    tensors: dict[str, Tensor]


def write_sealed(
    path: Path, subject: str, tensors: Mapping[str, Tensor], *, record: str = ""
) -> Header:
    """Write ``tensors``, whole or not at all; returns the header of the file.

    Args:
        path: the file; no other process writes it.
        subject: what they belong to; whoever reads them must know it.
        tensors: by name.
        record: a note to keep beside them.

    Raises:
        OSError: from the file system.
    """
    metadata = {_RECORD: record, _DIGEST: _digest(subject, record, tensors)}
    with replacing(path, sole_writer=True) as partial:
        write_safetensors(partial, {n: Entry.of(t) for n, t in tensors.items()}, metadata)
    return read_header(path)


def read_sealed(path: Path, subject: str) -> SealedTensors:
    """Read a file of `write_sealed` back, and check every byte of it.

    Raises:
        PackError: it is missing, damaged, or of another subject.
    """
    header = read_header(path)
    record = header.metadata.get(_RECORD, "")
    tensors = {name: header.read(name) for name in header.tensors}
    if header.metadata.get(_DIGEST) != _digest(subject, record, tensors):
        raise PackError(f"{path}: damaged, or not of {subject[:80]}")
    return SealedTensors(header, record, tensors)


def _digest(subject: str, record: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(f"{subject}\n{record}\n".encode())
    for name in sorted(tensors):
        digest.update(f"{name} {TensorSpec.of(tensors[name])}\n".encode())
        digest.update(tensor_bytes(tensors[name]))
    return digest.hexdigest()
