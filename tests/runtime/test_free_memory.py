"""Free memory, and what is chosen by it: tiles of the autoencoder, and how weights lie on a GPU."""

import logging

import pytest
import torch

from artifacts.pack.reader import open_pack
from runtime import free_memory
from runtime.backends import residency
from runtime.backends.residency import WORKING_BYTES, network_bytes, resident_backend
from runtime.free_memory import free_bytes, peak_bytes
from runtime.memory import tile_for_memory
from runtime.sampling import autoencoder
from runtime.sampling.autoencoder import DECODE_MAPS, encode
from schemas.errors import UsageError
from tests.artifacts.make_pack import make_pack
from tests.runtime.tiny_pipeline import make_tiny_pipeline

CPU, GPU = torch.device("cpu"), torch.device("cuda")
GIB = 2**30


def test_memory_of_this_process():
    assert peak_bytes(CPU) > 10**7
    assert 0 < free_bytes(CPU) < 2**50
    assert free_bytes(torch.device("meta")) is None


def linux(monkeypatch, folder, *, limit=None):
    (folder / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:   8388608 kB\n")
    if limit is not None:
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{3 * GIB}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {GIB}\n")
    monkeypatch.setattr(free_memory, "_MEMINFO", folder / "meminfo")
    monkeypatch.setattr(free_memory, "_CGROUP", folder)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(None, 8 * GIB), ("max", 8 * GIB), (4 * GIB, 2 * GIB), (40 * GIB, 8 * GIB)],
)
def test_what_is_available_within_a_containers_limit(monkeypatch, tmp_path, limit, expected):
    linux(monkeypatch, tmp_path, limit=limit)
    assert free_bytes(CPU) == expected


def test_a_system_that_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(free_memory, "_MEMINFO", tmp_path / "none")
    assert free_bytes(CPU) is None


@pytest.mark.parametrize(
    ("free", "tile"),
    [(None, 1024), (10 * GIB, 1024), (5 * GIB, 512), (GIB, 256), (0, 256)],
)
def test_tiles_by_free_memory(free, tile, caplog):
    caplog.set_level(logging.INFO, "runtime")
    # SD 3.5's autoencoder: 4.25 GiB for tiles of 1024 px.
    assert tile_for_memory(1024, 256, 32, DECODE_MAPS * 128 * 4, free, "decoding") == tile
    assert ("tiles of" in caplog.text) == (tile < 1024)


def test_the_autoencoder_begins_with_tiles_that_fit(monkeypatch):
    pipeline = make_tiny_pipeline()
    tried = []

    def encode_in_tiles(_pipeline, image, tile):
        tried.append(tile)
        return image

    monkeypatch.setattr(autoencoder, "encode_in_tiles", encode_in_tiles)
    for free in (8 * GIB, 2**24):
        monkeypatch.setattr(autoencoder, "free_bytes", lambda _device, free=free: free)
        encode(pipeline, torch.zeros(1, 3, 640, 512))
    assert tried == [640, 256]


@pytest.fixture
def pack(tmp_path):
    make_pack(tmp_path / "a.qpack")
    return open_pack(tmp_path / "a.qpack")


@pytest.fixture
def gpu(monkeypatch):
    """Free memory of a GPU on which both Triton backends run; its backend ``auto``."""
    machine = {"free": 80 * GIB, "auto": "triton", "packed": None}

    class Found:
        @property
        def name(self):
            return machine["auto"]

        def missing(self, _device):
            return machine["packed"]

    monkeypatch.setattr(residency, "find_backend", lambda *_: Found())
    monkeypatch.setattr(residency, "BACKENDS", {"triton-packed": Found()})
    monkeypatch.setattr(residency, "free_bytes", lambda _device: machine["free"])
    return machine


def test_weights_stay_packed_where_memory_is_short(pack, gpu):
    def chosen(memory, backend="auto", device=GPU):
        return resident_backend(backend, memory, pack, device, torch.bfloat16)

    assert (chosen("auto"), chosen("fast"), chosen("low")) == ("auto", "auto", "triton-packed")
    gpu["free"] = network_bytes(pack) + WORKING_BYTES - 1
    assert (chosen("auto"), chosen("fast")) == ("triton-packed", "auto")
    gpu["free"] += 1
    assert chosen("auto") == "auto"
    assert chosen("low", device=CPU) == "auto"
    assert chosen("auto", backend="triton") == "triton"
    with pytest.raises(UsageError, match="--memory low chooses a backend"):
        chosen("low", backend="triton")
    gpu["auto"] = "reference"  # the kernels failed their check
    assert chosen("low") == "auto"
    gpu.update(auto="triton", packed="no Triton here")
    assert chosen("low") == "auto"


def test_a_networks_bytes_are_those_of_its_codes_as_bytes(pack):
    stored = sum(file.bytes for file in pack.manifest.files.values())
    codes = sum(pack.layer(name).unpacked_codes().numel() for name in pack.layer_names)
    packed = sum(
        pack.layer(name).unpacked_codes().numel() * pack.manifest.layers[name].weight_bits / 8
        for name in pack.layer_names
    )
    assert network_bytes(pack) == pytest.approx(stored + codes - packed, abs=len(pack.layer_names))
