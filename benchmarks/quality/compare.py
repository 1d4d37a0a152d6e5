"""Measure rows one after another; what is already measured is read, not run again."""

import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from artifacts.pack.reader import Pack
from benchmarks.quality import measure as measuring
from benchmarks.quality.measure import Bench
from benchmarks.quality.packs import PackMaker, content_of
from benchmarks.quality.peers import Peer, peer_of
from benchmarks.quality.rows import Row
from benchmarks.quality.storage import stored_bits_of_pack
from benchmarks.quality.store import Content, RowStore, key_of
from planner.build.network_probe import active_linears
from runtime.load import load_full_precision

ROOT = Path(__file__).parents[2]
SOURCES = ("schemas", "artifacts", "runtime", "planner", "training", "benchmarks/cases.py")
MEASURING = ("calibration_images", "intervals", "measure", "packs", "peer", "comfy", "storage")
"""Modules of this package that numbers come from; the others only show them."""

Say = Callable[[str], None]


def code_fingerprint() -> str:
    """Hash of the project's source files: tells apart rows that different code measured."""
    digest = hashlib.sha256()
    places = [ROOT / source for source in SOURCES]
    places += [Path(__file__).with_name(f"{module}.py") for module in MEASURING]
    for place in places:
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.relative_to(ROOT).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class Comparison:
    """Measures rows on one bench.

    Args:
        bench: the cases and references.
        maker: of packs.
        store: of finished rows.
        say: told what is going on, one line at a time.
    """

    def __init__(self, bench: Bench, maker: PackMaker, store: RowStore, say: Say) -> None:
        self.bench = bench
        self.maker = maker
        self.store = store
        self.say = say
        self.sampling = bench.sampling.key_parts()
        self.code = code_fingerprint()
        self.device = device_label(bench.pipeline.device)

    def run(self, rows: Iterable[Row]) -> dict[str, Content]:
        """Measure ``rows``; full name -> its content."""
        rows = list(rows)
        found: dict[str, Content] = {}
        for index, row in enumerate(rows, start=1):
            content = self.row(row, f"[{index}/{len(rows)}] {row.full_name}")
            if content is not None:
                found[row.full_name] = content
        return found

    def known(self, rows: Iterable[Row]) -> dict[str, Content]:
        """The finished ones among ``rows``; full name -> its content."""
        found = {row.full_name: self.store.load(row.full_name, self.key(row)) for row in rows}
        return {name: content for name, content in found.items() if content is not None}

    def row(self, row: Row, heading: str = "") -> Content | None:
        """Measure one row, or read it; None for a peer that is not installed."""
        key = self.key(row)
        known = self.store.load(row.full_name, key)
        if known is not None:
            self.say(f"{heading}: measured before")
            return known
        peer = peer_of(row)
        if peer is not None and not peer.is_available():
            self.say(f"{heading}: left out, {peer.package} is not installed")
            return None
        began = time.monotonic()
        content = self._recipe(row, heading) if peer is None else self._peer(peer, row, heading)
        content |= {"row": asdict(row), "code": self.code, "device": self.device}
        content["seconds"] = round(time.monotonic() - began, 1)
        content = self.store.save(row.full_name, key, content)
        mean = sum(map(sum, content["values"]["latent_db"]))
        mean /= sum(map(len, content["values"]["latent_db"]))
        self.say(f"{heading}: {mean:.2f} dB in {content['seconds']:.0f} s")
        return content

    def key(self, row: Row) -> str:
        """What the row is stored under: a hash of its settings and of the sampling."""
        settings = row.settings()
        peer = peer_of(row)
        if peer is not None and peer.is_available():
            settings["version"] = peer.version()
        if row.recipe:
            settings["planner"] = self.maker.settings(row).recorded()
        return key_of({"row": settings, "sampling": self.sampling})

    def _recipe(self, row: Row, heading: str) -> Content:
        self.say(f"{heading}: building")
        with self.maker.pack(row) as pack:
            content = {"content": content_of(pack, self.sampling), **describe(pack)}
            same = self.store.find(content["content"])
            if same is not None:
                name = f"{same['row']['target']}/{same['row']['name']}"
                self.say(f"{heading}: the same network as {name}")
                return content | {"values": same["values"], "same_as": name}
            quantized = self.maker.load(pack)
        values = measuring.measure(
            self.bench, quantized.network, quantized.bits_at, self._progress(heading)
        )
        return content | {"values": values}

    def _peer(self, peer: Peer, row: Row, heading: str) -> Content:
        model = self.bench.sampling.model
        device = self.bench.pipeline.device
        pipeline = load_full_precision(model, device=device, dtype=torch.float32)
        layers = active_linears(pipeline.architecture)
        storage = peer.apply(pipeline.network, layers, row.peer_settings)
        values = measuring.measure(
            self.bench, pipeline.network, pipeline.bits_at, self._progress(heading)
        )
        return {
            "values": values,
            "version": peer.version(),
            "stored_bits": round(storage.bits_per_weight, 4),
            "groups": list(storage.groups),
        }

    def _progress(self, heading: str) -> measuring.Progress:
        """Say now and then how far a row is."""
        began = last = time.monotonic()

        def progress(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last > 20 and done < total:
                last = now
                left = (now - began) / done * (total - done)
                self.say(f"{heading}: {done} of {total} pictures, {left:.0f} s left")

        return progress


def device_label(device: torch.device) -> str:
    """What a document calls the device of a run."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def describe(pack: Pack) -> dict[str, Any]:
    """What a pack's JSON files say that the results will show."""
    manifest, grid = pack.manifest, pack.bit_grid
    layers = {name: r for name, r in manifest.layers.items() if r.is_quantized}
    return {
        "recipe": manifest.recipe.name,
        "settings": dict(manifest.recipe.settings),
        "reached": manifest.reached.model_dump(),
        "stored_bits": round(stored_bits_of_pack(pack), 4),
        "layers": {
            name: {
                "weight_bits": record.weight_bits,
                "error_db": record.error_db,
                "activation_bits": list(grid.layers[name].activation_bits),
            }
            for name, record in layers.items()
        },
    }


def to_stderr(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)
