"""Checkpoints: opened, estimated, and built into a pack."""

import struct
from pathlib import Path
from random import Random

import torch

from artifacts.checkpoint.reader import open_checkpoint
from planner.estimate.estimate import estimate
from schemas.errors import CheckpointError
from tests.artifacts.make_checkpoint import INDEX, random_state, write_file
from tests.fuzz.case import CHANGED, EQUAL, Case, WrongResultError
from tests.fuzz.mutate.data import mutate_bytes
from tests.fuzz.mutate.json_text import mutate_json
from tests.fuzz.targets.small_build import (
    CONFIG,
    SETTINGS,
    build_pack,
    clear,
    network_files,
    write_checkpoint,
)

SHARD = "transformer/diffusion_pytorch_model-00001-of-00002.safetensors"
BARE = "bare.safetensors"
_LENGTH_BYTES = 8
_JSON_FILES = {
    "transformer/config.json": 25,
    f"transformer/{INDEX}": 12,
    "sampling.json": 6,
    "vae/config.json": 3,
}
_HEADERS = {SHARD: 15, BARE: 12, "prompts.safetensors": 3}
_TENSORS = {f"tensors of {SHARD}": 12, f"tensors of {BARE}": 6}
_BYTES = {f"bytes of {SHARD}": 4, f"bytes of {BARE}": 4}
# Not a number, infinities, the largest, the smallest, minus zero, 1e20: as bfloat16.
_VALUES = (0x7FC0, 0x7F80, 0xFF80, 0x7F7F, 0x0001, 0x8000, 0x60AD, 0x3F80, 0x5368, 0xD368)


class Checkpoints:
    """A folder with two shards and all that a pipeline has, and a bare file."""

    name = "checkpoints"
    errors = (CheckpointError,)

    def prepare(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self._output = folder / "a.qpack"
        self._source = write_checkpoint(folder / "source", shards=2)
        self._valid = {
            path.relative_to(self._source).as_posix(): path.read_bytes()
            for path in self._source.rglob("*")
            if path.is_file()
        }
        self._bare = folder / BARE
        self._valid[BARE] = write_file(self._bare, random_state(CONFIG)).read_bytes()
        self._changed: set[str] = set()
        self._known = {bare: self._build(bare) for bare in (False, True)}

    def make(self, rng: Random, index: int) -> Case:
        choices = {**_JSON_FILES, **_HEADERS, **_TENSORS, **_BYTES}
        (what,) = rng.choices(list(choices), list(choices.values()))
        name = what.rpartition(" ")[2]
        content = self._valid[name]
        end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
        if what in _JSON_FILES:
            mutated = mutate_json(content.decode(), rng)
        elif what in _HEADERS:
            header = mutate_json(content[_LENGTH_BYTES:end].decode(), rng)
            mutated = len(header).to_bytes(_LENGTH_BYTES, "little") + header + content[end:]
        elif what in _TENSORS:
            mutated = content[:end] + _mutate_values(content[end:], rng)
        else:
            mutated = mutate_bytes(content, rng)
        return Case(what, {name: mutated})

    def run(self, case: Case) -> str:
        for name in self._changed - set(case.files):
            self._place(name).write_bytes(self._valid[name])
        for name, content in case.files.items():
            self._place(name).write_bytes(content)
        self._changed = set(case.files)
        bare = BARE in case.files
        return EQUAL if self._build(bare) == self._known[bare] else CHANGED

    def _place(self, name: str) -> Path:
        return self._bare if name == BARE else self._source / name

    def _build(self, bare: bool) -> dict[str, bytes]:
        checkpoint = open_checkpoint(self._bare if bare else self._source)
        predicted = estimate(checkpoint.architecture(), SETTINGS)
        pack = build_pack(checkpoint, self._output)
        layers, expected = len(pack.layer_names), len(predicted.layers)
        if layers != expected:
            raise WrongResultError(f"{expected} layers were predicted, the pack has {layers}")
        content = network_files(self._output)
        left = sorted(path.name for path in self._output.parent.iterdir())
        if left != sorted({self._output.name, self._source.name, self._bare.name}):
            raise WrongResultError(f"left over: {left}")
        clear(self._output)
        self._output.rmdir()
        return content


def _mutate_values(data: bytes, rng: Random) -> bytes:
    """Other values of some tensors: single ones, or a whole run of them."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        value = struct.pack(
            "<H", rng.choice(_VALUES) if rng.random() < 0.7 else rng.randrange(2**16)
        )
        count = rng.choice((1, 1, 1, 20, 2_000))
        place = 2 * rng.randrange(max(1, len(data) // 2 - count))
        changed[place : place + 2 * count] = value * count
    return bytes(changed[: len(data)])
