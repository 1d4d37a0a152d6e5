"""Headers of safetensors files; what is accepted must be what the library itself reads."""

import json
from pathlib import Path
from random import Random

import safetensors
import torch

from artifacts.files.safetensors_io import Entry, Header, read_header, write_safetensors
from schemas.errors import PackError
from tests.fuzz.case import CHANGED, EQUAL, Case, WrongResultError
from tests.fuzz.mutate.data import mutate_bytes
from tests.fuzz.mutate.json_text import mutate_json

_LENGTH_BYTES = 8


class Headers:
    """Mutated headers of three small files: their JSON, the length before it, what follows it."""

    name = "headers"
    errors = (PackError,)

    def prepare(self, folder: Path) -> None:
        self._file = folder / "a.safetensors"
        self._valid: list[tuple[str, bytes, Header]] = []
        for entries, metadata in _contents():
            write_safetensors(self._file, entries, metadata)
            header = read_header(self._file)
            data = self._file.read_bytes()
            end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
            self._valid.append((data[_LENGTH_BYTES:end].decode(), data[end:], header))
            self.run(Case("nothing", {"a.safetensors": data}, str(len(self._valid) - 1)))

    def make(self, rng: Random, index: int) -> Case:
        number = index % len(self._valid)
        text, body, _ = self._valid[number]
        kind = rng.random()
        if kind < 0.8:
            what, header = "JSON", mutate_json(text, rng)
        else:
            what, header = "bytes", mutate_bytes(text.encode(), rng)
        length = len(header).to_bytes(_LENGTH_BYTES, "little")
        if rng.random() < 0.03:
            what, length = "length", mutate_bytes(length, rng)
        if rng.random() < 0.03:
            what, body = "body", mutate_bytes(body, rng)
        return Case(what, {"a.safetensors": length + header + body}, str(number))

    def run(self, case: Case) -> str:
        data = case.files["a.safetensors"]
        self._file.write_bytes(data)
        found = read_header(self._file)
        original = self._valid[int(case.option)][2]
        if _facts(found) == _facts(original):
            return EQUAL
        _compare(found, data)
        return CHANGED


def _contents() -> list[tuple[dict[str, Entry], dict[str, str]]]:
    weights = {
        f"blocks.{block}.{part}": torch.zeros(4, 2 + block, dtype=torch.bfloat16)
        for block in range(3)
        for part in ("weight", "bias", "scale")
    }
    kinds = {
        "codes": torch.zeros(3, 5, dtype=torch.uint8),
        "scalar": torch.zeros((), dtype=torch.float64),
        "nothing": torch.zeros(0, 7),
        "küche 😀": torch.zeros(2, dtype=torch.int16),
    }
    one = {"weight": torch.zeros(2, 3)}
    contents = [
        (weights, {"format": "pt"}),
        (kinds, {"a": "é", "b": "\n", "format": "pt"}),
        (one, {}),
    ]
    return [
        ({name: Entry.of(tensor) for name, tensor in tensors.items()}, metadata)
        for tensors, metadata in contents
    ]


def _facts(header: Header) -> object:
    """What a header says, without where its tensors start: its own length may differ."""
    first = min(info.start for info in header.tensors.values()) if header.tensors else 0
    tensors = {
        name: (info.dtype, info.shape, info.start - first, info.end - first)
        for name, info in header.tensors.items()
    }
    return tensors, header.metadata


def _compare(found: Header, data: bytes) -> None:
    """What we read must be what the library reads.

    Raises:
        WrongResultError: it is not, or the library refuses the file.
    """
    try:
        known = dict(safetensors.deserialize(data))
    except safetensors.SafetensorError as error:
        raise WrongResultError(f"accepted, but the library says: {error}") from error
    ours = {
        name: (info.dtype, list(info.shape), data[info.start : info.end])
        for name, info in found.tensors.items()
    }
    theirs = {
        name: (entry["dtype"], list(entry["shape"]), bytes(entry["data"]))
        for name, entry in known.items()
    }
    if ours != theirs:
        raise WrongResultError(
            f"{json.dumps(sorted(ours))[:200]} read in another way by the library"
        )
