"""Safetensors files: a strict, bounded header reader, one-tensor reads, and a streaming writer.

Layout: the header's length in bytes (unsigned, 8 bytes, little-end), the header (JSON: name ->
``{dtype, shape, data_offsets}``, optionally ``__metadata__``), then the tensors, with neither gaps
nor overlaps. Everything the header says is checked against the file's size in exact integers, so a
hostile file costs no more memory than its own header.

Reads copy: no tensor is a window into a file, because a file that is replaced or cut short under a
memory map ends the process.
"""

import json
import math
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from schemas.errors import PackError, QPackError
from schemas.json_io import read_json_strict
from schemas.stand_in import PEEKED_BYTES, recognise

MAX_HEADER_BYTES = 4 * 2**20
"""Longest header read; some 25,000 tensors, five times those of a pack with 585 quantized layers.
(The library itself allows 100 MB.)"""
MAX_DIMENSIONS = 8

TORCH_DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F64": torch.float64,
}
"""The header's word for a dtype -> torch's."""
FLOAT_DTYPES = frozenset({"F16", "BF16", "F32", "F64"})
"""Words of the dtypes that ordinary weights come in."""
_DTYPE_WORDS = {dtype: word for word, dtype in TORCH_DTYPES.items()}

_LENGTH_BYTES = 8
_METADATA = "__metadata__"


@dataclass(frozen=True)
class TensorSpec:
    """Dtype (the header's word, such as ``BF16``) and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes, an exact integer of any magnitude."""
        return math.prod(self.shape) * TORCH_DTYPES[self.dtype].itemsize

    @classmethod
    def of(cls, tensor: Tensor) -> "TensorSpec":
        """The dtype and shape of ``tensor``."""
        return cls(_DTYPE_WORDS[tensor.dtype], tuple(tensor.shape))

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


@dataclass(frozen=True)
class TensorInfo(TensorSpec):
    """A tensor and where its bytes lie: [start, end), counted from the start of the file."""

    start: int
    end: int

    @property
    def spec(self) -> TensorSpec:
        """Dtype and shape without the place."""
        return TensorSpec(self.dtype, self.shape)


@dataclass(frozen=True)
class FileIdentity:
    """What changes when a file is replaced or written to."""

    device: int
    inode: int
    bytes: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileIdentity":
        """The identity that a ``stat`` result shows."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Header:
    """The checked header of one file.

    Attributes:
        path: the file.
        tensors: name -> dtype, shape and place.
        metadata: the file's own notes.
        identity: the file as it was when the header was read.
    """

    path: Path
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    identity: FileIdentity

    def read(self, name: str, *, error: type[QPackError] = PackError) -> Tensor:
        """Read one tensor, on the CPU; see `read_tensor`.

        Raises:
            KeyError: there is no such tensor.
            QPackError: (as ``error``) the file changed since its header was read.
        """
        return read_tensor(
            self.path, self.tensors[name], name=name, identity=self.identity, error=error
        )


def read_header(path: Path, *, error: type[QPackError] = PackError) -> Header:
    """Read and check the header of a safetensors file.

    Raises:
        QPackError: (as ``error``) the file cannot be read, is something else in place of
            safetensors (which is named), is cut short or too long (expected and actual bytes are
            given), or its header is malformed. The message starts with the path.
    """
    try:
        # Looked at before opening, which would wait for ever on a pipe.
        if not stat.S_ISREG(path.stat().st_mode):
            raise error(f"{path}: not a regular file")
        with path.open("rb") as file:
            identity = FileIdentity.of(os.fstat(file.fileno()))
            raw = _read_raw_header(file, identity.bytes, path, error)
    except OSError as cause:
        raise error(f"{path}: cannot be read: {cause.strerror or cause}") from cause
    content = read_json_strict(
        raw, where=f"{path}: header", error=error, max_bytes=MAX_HEADER_BYTES
    )
    if not isinstance(content, dict):
        raise error(f"{path}: header is not a JSON object")
    metadata = content.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise error(f"{path}: header: {_METADATA} is not an object of texts")
    data_start = _LENGTH_BYTES + len(raw)
    tensors = {
        name: _tensor_info(entry, data_start, f"{path}: tensor {name[:200]!r}", error)
        for name, entry in content.items()
    }
    _check_places(tensors, data_start, identity.bytes, path, error)
    return Header(path, tensors, metadata, identity)


def read_tensor(
    path: Path,
    info: TensorInfo,
    *,
    name: str = "tensor",
    identity: FileIdentity | None = None,
    error: type[QPackError] = PackError,
) -> Tensor:
    """Read one tensor into memory of its own.

    Args:
        path: the file.
        info: from the file's checked header.
        name: the tensor's name, for messages.
        identity: the file as it must still be; None skips the check.
        error: the exception type to raise.

    Raises:
        QPackError: (as ``error``) the file cannot be read, was replaced, or is cut short.
    """
    try:
        with path.open("rb") as file:
            if identity is not None and FileIdentity.of(os.fstat(file.fileno())) != identity:
                raise error(f"{path}: was replaced or changed while it was in use")
            buffer = torch.empty(info.nbytes, dtype=torch.uint8)
            file.seek(info.start)
            count = file.readinto(buffer.numpy().data)
            # Once more: bytes may have been overwritten in the middle of the read.
            if identity is not None and FileIdentity.of(os.fstat(file.fileno())) != identity:
                raise error(f"{path}: was replaced or changed while it was in use")
    except OSError as cause:
        raise error(f"{path}: cannot be read: {cause.strerror or cause}") from cause
    if count != info.nbytes:
        raise error(f"{path}: {name}: {info.nbytes} bytes expected, but only {count} are left")
    return buffer.view(TORCH_DTYPES[info.dtype]).view(info.shape)


@dataclass(frozen=True)
class Entry:
    """A tensor to be written: its spec is known before its bytes are produced.

    Attributes:
        spec: dtype and shape.
        chunks: called once, when it is this tensor's turn; yields its bytes in order.
    """

    spec: TensorSpec
    chunks: Callable[[], Iterable[bytes | memoryview]] = field(repr=False)

    @classmethod
    def of(cls, tensor: Tensor) -> "Entry":
        """An entry for a tensor in memory."""
        return cls(TensorSpec.of(tensor), lambda: [tensor_bytes(tensor)])


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The row-major bytes of ``tensor`` as a file holds them (this machine is little-end)."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def file_order(specs: Mapping[str, TensorSpec]) -> list[str]:
    """Names in the order of a file: wide dtypes first, so that all lie aligned, then by name."""
    return sorted(specs, key=lambda name: (-TORCH_DTYPES[specs[name].dtype].itemsize, name))


def write_safetensors(
    path: Path, entries: Mapping[str, Entry], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a file whose bytes depend on the tensors and ``metadata`` alone, and sync it.

    Tensors come in the order of `file_order`, whatever the order of ``entries``; one chunk is in
    memory at a time.

    Raises:
        ValueError: a tensor produces fewer or more bytes than its spec says.
        OSError: from the file system.
    """
    order = file_order({name: entry.spec for name, entry in entries.items()})
    content: dict[str, Any] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in order:
        spec = entries[name].spec
        start, end = end, end + spec.nbytes
        content[name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % _LENGTH_BYTES)  # so that the tensors start aligned
    with path.open("wb") as file:
        file.write(len(text).to_bytes(_LENGTH_BYTES, "little"))
        file.write(text)
        for name in order:
            written = sum(file.write(chunk) for chunk in entries[name].chunks())
            if written != entries[name].spec.nbytes:
                raise ValueError(
                    f"{name}: {entries[name].spec.nbytes} bytes announced, {written} produced"
                )
        file.flush()
        os.fsync(file.fileno())


def _read_raw_header(file: BinaryIO, file_bytes: int, path: Path, error: type[QPackError]) -> bytes:
    start = file.read(PEEKED_BYTES)
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    looks_right = start[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{"
    if not looks_right or length > MAX_HEADER_BYTES:
        # Asked only now: a small header's length may begin with the same bytes as a pickle.
        other = _recognise(start)
        if other:
            raise error(f"{path}: {other[0]}, not safetensors", hint=other[1])
    if file_bytes <= _LENGTH_BYTES:
        raise error(f"{path}: {file_bytes} bytes, too short for a safetensors file")
    if length > MAX_HEADER_BYTES:
        what = "" if looks_right else "not a safetensors file: "
        limit = f"header length {length}, more than the limit of {MAX_HEADER_BYTES}"
        raise error(f"{path}: {what}{limit}")
    if length > file_bytes - _LENGTH_BYTES:
        raise error(
            f"{path}: truncated: {_LENGTH_BYTES + length} bytes expected for the header alone, the"
            f" file has {file_bytes}"
        )
    if not looks_right:
        raise error(f"{path}: not a safetensors file: its header does not start with '{{'")
    file.seek(_LENGTH_BYTES)
    raw = file.read(length)
    if len(raw) != length:
        raise error(f"{path}: changed while it was read")
    return raw


def _recognise(start: bytes) -> tuple[str, str] | None:
    """Name what stands in place of safetensors, and what to do about it."""
    # Protocols 2 to 5 open with 0x80 and their number.
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return (
            "a PyTorch or pickle file, which could run code when loaded",
            "convert it: load it where you trust it, then save it with safetensors.torch.save_file",
        )
    if start.startswith(b"\x00\x05\x16\x07"):
        return (
            "an AppleDouble file, which macOS leaves beside another",
            "name the file without `._`",
        )
    if start.startswith(b"GGUF"):
        return "a GGUF file", "use the original safetensors checkpoint"
    return recognise(start)


def _tensor_info(entry: Any, data_start: int, where: str, error: type[QPackError]) -> TensorInfo:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise error(f"{where}: needs exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in TORCH_DTYPES:
        raise error(f"{where}: unknown dtype {str(dtype)[:40]!r}")
    if not _is_counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise error(f"{where}: shape must be at most {MAX_DIMENSIONS} integers below 2^63")
    if not _is_counts(offsets) or len(offsets) != 2:
        raise error(f"{where}: data_offsets must be two integers below 2^63")
    info = TensorInfo(dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])
    if info.nbytes != offsets[1] - offsets[0]:
        raise error(
            f"{where}: {info.spec} takes {info.nbytes} bytes, but its offsets span"
            f" {offsets[1] - offsets[0]}"
        )
    return info


def _is_counts(value: Any) -> bool:
    # `type` and not isinstance: True is an int.
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _check_places(
    tensors: Mapping[str, TensorInfo],
    data_start: int,
    file_bytes: int,
    path: Path,
    error: type[QPackError],
) -> None:
    """The tensors must follow one another from the header to the end of the file."""
    expected = data_start
    by_place: Sequence[str] = sorted(tensors, key=lambda n: (tensors[n].start, tensors[n].end))
    for name in by_place:
        info = tensors[name]
        if info.start != expected:
            kind = "overlaps the tensor before it" if info.start < expected else "leaves a gap"
            raise error(f"{path}: tensor {name[:200]!r} {kind}")
        expected = info.end
    if file_bytes < expected:
        raise error(f"{path}: truncated: {expected} bytes expected, the file has {file_bytes}")
    if file_bytes > expected:
        raise error(
            f"{path}: {file_bytes - expected} trailing bytes: {expected} bytes expected, the file"
            f" has {file_bytes}"
        )
