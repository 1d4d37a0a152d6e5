"""`benchmarks.vae_memory`: a peak is found, and the command prints every pass and side."""

import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks import vae_memory
from benchmarks.full_size_run import VAE

SMALL = VAE | {"block_out_channels": (4,) * 4, "layers_per_block": 1, "norm_num_groups": 2}
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's account of memory"
)


def test_the_peak_counts_and_what_is_left_does_not():
    size = 64 * 2**20
    assert vae_memory.grown_by(lambda: torch.ones(size // 4)) > 0.9 * size
    assert vae_memory.grown_by(lambda: None) < 0.1 * size


def test_passes_and_sides(monkeypatch, capsys):
    monkeypatch.setattr(vae_memory, "VAE", SMALL)

    def in_this_process(command, **_options):
        found = vae_memory.one_tile(command[4], int(command[6]))
        return subprocess.CompletedProcess(command, 0, stdout=f"{found}\n")

    monkeypatch.setattr(subprocess, "run", in_this_process)
    vae_memory.main(["--sides", "64,128"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"{name} {side} px" for name in ("encode", "decode") for side in (64, 128)
    ]
