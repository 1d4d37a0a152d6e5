"""Packs whose mutated files are sealed again, so that hashes do not hide the checks behind them."""

import hashlib
import json
import unicodedata
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from rich.console import Console
from torch import Tensor

from artifacts.pack.reader import verify_pack
from planner.inspect.pack_tables import render_pack
from runtime.load import load_pack
from runtime.sampling.settings import SamplingOptions
from runtime.upscale import upscale
from schemas.errors import CheckpointError, PackError, UsageError
from schemas.manifest import Manifest, SamplingDefaults
from tests.artifacts.make_pack import TINY, make_pack
from tests.fuzz.case import CHANGED, EQUAL, Case, WrongResultError
from tests.fuzz.mutate.data import mutate_bytes
from tests.fuzz.mutate.json_text import mutate_json, mutate_member

MANIFEST = "manifest.json"
MOST_STEPS = 2
LARGEST_SIDE_PX = 32
"""What a manifest may ask for is up to 10,000 steps at 2,048 px: right, but not within seconds."""
SAMPLING = SamplingDefaults(
    steps=MOST_STEPS,
    guidance=3.0,
    shift=3.0,
    tile_latent=16,
    overlap_latent=4,
    min_side_px=16,
    color_fix="adain",
)
_LENGTH_BYTES = 8
_JSON_FILES = {
    "vae/config.json": 20,
    "bit_grid.json": 16,
    "scheduler/scheduler_config.json": 3,
    MANIFEST: 28,
}
_MEMBERS = {
    ("sampling",): 14,
    ("model", "config"): 7,
    ("modulation",): 4,
    ("rotation",): 3,
    ("recipe",): 2,
}
_HEADERS = {
    "prompts.safetensors": 3,
    "modulation.safetensors": 3,
    "transformer.safetensors": 4,
    "vae/diffusion_pytorch_model.safetensors": 2,
}


class Packs:
    """A tiny pack; verified, shown, loaded, and used to enlarge a picture of 8 x 8 px."""

    name = "packs"
    # A manifest that lists no prompts, or no VAE, is that of a pack that needs them by options.
    errors = (PackError, CheckpointError, UsageError)

    def prepare(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self._pack = folder / "a.qpack"
        config = TINY.model_copy(update={"num_layers": 1})
        make_pack(self._pack, config=config, modulation="both", changes={"sampling": SAMPLING})
        self._valid = {
            path.relative_to(self._pack).as_posix(): path.read_bytes()
            for path in self._pack.rglob("*")
            if path.is_file()
        }
        self._changed: set[str] = set()
        pixels = torch.arange(3 * 8 * 8).view(1, 3, 8, 8)
        self._rgb = (pixels * 37 % 256).float() / 255
        self._picture = self._enlarge()
        self._check(self._picture)

    def make(self, rng: Random, index: int) -> Case:
        choices = {**_JSON_FILES, **_MEMBERS, **_HEADERS}
        (what,) = rng.choices(list(choices), list(choices.values()))
        if isinstance(what, tuple):
            mutated = mutate_member(self._valid[MANIFEST].decode(), what, rng)
            return Case(".".join(what), {MANIFEST: sealed(mutated)})
        content = self._valid[what]
        if what in _HEADERS:
            mutated = _mutate_header(content, rng)
        elif rng.random() < 0.9:
            mutated = mutate_json(content.decode(), rng)
        else:
            mutated = mutate_bytes(content, rng)
        if what == MANIFEST:
            return Case(what, {MANIFEST: sealed(mutated)})
        manifest = json.loads(self._valid[MANIFEST])
        digest = hashlib.sha256(mutated).hexdigest()
        manifest["files"][what] = {"bytes": len(mutated), "sha256": digest}
        return Case(what, {what: mutated, MANIFEST: sealed(json.dumps(manifest).encode())})

    def run(self, case: Case) -> str:
        for name in self._changed - set(case.files):
            (self._pack / name).write_bytes(self._valid[name])
        for name, content in case.files.items():
            (self._pack / name).write_bytes(content)
        self._changed = set(case.files)
        picture = self._enlarge()
        if torch.equal(picture, self._picture):
            return EQUAL
        self._check(picture)
        return CHANGED

    def _enlarge(self) -> Tensor:
        pack = verify_pack(self._pack)
        _show(render_pack(pack, list(pack.manifest.layers)))
        pipeline = load_pack(
            self._pack, device=torch.device("cpu"), dtype=torch.float32, backend="reference"
        )
        settings = SamplingOptions().settings(
            pipeline.sampling, patch_size=pipeline.patch_size, largest_tile=pipeline.largest_tile
        )
        bounded = replace(
            settings,
            steps=min(settings.steps, MOST_STEPS),
            min_side_px=min(settings.min_side_px, LARGEST_SIDE_PX),
        )
        return upscale(pipeline, self._rgb, bounded)

    def _check(self, picture: Tensor) -> None:
        if picture.shape != (1, 3, 32, 32) or not bool(torch.isfinite(picture).all()):
            raise WrongResultError(f"a picture of shape {tuple(picture.shape)}, or not finite")


def sealed(manifest: bytes) -> bytes:
    """The manifest with the checksum of what it says, where it is one at all."""
    try:
        content = json.loads(manifest)
        old = content["checksum"]
        new = Manifest.model_validate(content).true_checksum
    except (ValueError, KeyError, TypeError, RecursionError):
        return manifest
    return manifest.replace(old.encode(), new.encode()) if old else manifest


def _mutate_header(content: bytes, rng: Random) -> bytes:
    end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    header = mutate_json(content[_LENGTH_BYTES:end].decode(), rng)
    return len(header).to_bytes(_LENGTH_BYTES, "little") + header + content[end:]


def _show(rendered: object) -> None:
    """Print what `qplan inspect` prints, into a text.

    Raises:
        WrongResultError: a terminal would obey something in it.
    """
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(rendered)
    raw = {c for c in capture.get() if unicodedata.category(c) in {"Cc", "Cf", "Cs"} and c != "\n"}
    if raw:
        raise WrongResultError(f"qplan inspect prints {sorted(raw)!r}")
