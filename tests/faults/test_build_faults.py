"""Faults of a build, rows 11 to 13, 16 and 17 of the fault table, through ``qplan build``."""

import errno
import os
import subprocess
import sys
from contextlib import suppress

import pytest
import torch

from artifacts.pack.reader import verify_pack
from planner.build.work_folder import work_folder
from tests.artifacts.make_checkpoint import random_state, write_file
from tests.artifacts.make_pack import make_pack
from tests.planner.diverging_eigh import diverging_eigh
from tests.planner.run_qplan import assert_fails, leftovers, run_qplan

RANKS = ("--global-rank", 2, "--local-rank", 2)


@pytest.fixture
def source(tmp_path):
    return write_file(tmp_path / "tiny.safetensors", random_state())


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Row 11


@pytest.mark.parametrize(
    ("target", "nearest"),
    [
        ("W1A4", "W2A4"),
        ("W9A4", "W8A4"),
        ("W1.99A4", "W2A4"),
        ("W4A1", "W4A2"),
        ("W4A9", "W4A8"),
        ("W4A12", "W4A16"),
        ("W0A0", "W2A2"),
        ("4/4", "W4A4"),
        ("W4", "W4A4"),
        ("W-4A4", "W4A4"),
        ("WnanA4", "W4A4"),
    ],
)
def test_an_impossible_target_names_the_nearest(source, tmp_path, target, nearest):
    assert_fails(run_qplan("build", source, *RANKS, "--target", target), 2, nearest)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "nearest"),
    [(("--min-bits", 5), "W5A4"), (("--max-bits", 3), "W3A4"), (("--max-bits", 9), "1 <= min")],
)
def test_a_target_outside_the_given_bounds(source, tmp_path, options, nearest):
    assert_fails(run_qplan("build", source, *RANKS, *options), 2, nearest)
    assert leftovers(tmp_path) == []


# Row 12


@pytest.mark.parametrize("pattern", ["nrom1", r"attn2\.add_q_proj", "proj_out"])
def test_a_pattern_that_finds_no_layer(source, tmp_path, pattern):
    result = run_qplan("build", source, *RANKS, "--keep", "norm1", "--keep", pattern)
    assert_fails(result, 2, "finds none", "transformer_blocks.")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("pattern", ["(", "*"])
def test_a_pattern_that_is_none(source, pattern):
    assert_fails(run_qplan("build", source, *RANKS, "--keep", pattern), 2, f"'{pattern}'")


# Row 13


def test_a_decomposition_that_fails_in_float32_is_done_in_float64(source, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.linalg, "eigh", diverging_eigh(torch.float32))
    result = run_qplan("build", source, *RANKS)
    assert result.exit_code == 0
    assert "converge" not in result.stderr
    pack = verify_pack(tmp_path / "tiny-w4a4.qpack")
    assert all(record.global_rank == 2 for record in pack.manifest.layers.values())


def test_a_decomposition_that_never_converges_is_left_out_and_said(source, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.linalg, "eigh", diverging_eigh(torch.float32, torch.float64))
    result = run_qplan("build", source, *RANKS)
    assert result.exit_code == 0
    pack = verify_pack(tmp_path / "tiny-w4a4.qpack")
    for name, record in pack.manifest.layers.items():
        assert (record.global_rank, record.local_block) == (0, None)
        assert f"warning: layer {name}: {record.note}" in result.stderr
        assert "global factors left out" in record.note
        assert "local factors left out" in record.note


# Row 16


def synced_file(descriptor, folder):
    """Which file under a folder a descriptor is of; other threads write and rename beside it."""
    wanted = os.fstat(descriptor)
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), wanted):
                return path.relative_to(folder).as_posix()
    return ""


@pytest.mark.parametrize(
    "failing", ["plan.json", "/layers/", "/transformer.safetensors", "/README.md"]
)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_fails_leaves_the_older_pack(source, tmp_path, monkeypatch, failing, code):
    output = tmp_path / "out.qpack"
    make_pack(output)
    before = content(output)
    true_sync, failed = os.fsync, []

    def sync(descriptor):
        if failing in synced_file(descriptor, tmp_path):
            failed.append(descriptor)
            raise OSError(code, os.strerror(code))
        true_sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    result = run_qplan("build", source, *RANKS, "-o", output, "--force")
    assert_fails(result, 5, output.name, os.strerror(code))
    assert failed
    assert leftovers(tmp_path) == [work_folder(output).name, output.name]
    assert content(output) == before

    monkeypatch.setattr(os, "fsync", true_sync)
    assert run_qplan("build", source, *RANKS, "-o", output, "--force").exit_code == 0
    assert verify_pack(output).manifest.producer.name == "qplan"
    assert leftovers(tmp_path) == [output.name]


def test_a_full_disk_while_layers_are_written(source, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("artifacts.files.safetensors_io.tensor_bytes", full)
    assert_fails(run_qplan("build", source, *RANKS), 5, "No space left", "is kept")
    assert leftovers(tmp_path) == [".tiny-w4a4.qpack.unfinished"]


def test_memory_that_runs_out(source, tmp_path, monkeypatch):
    def greedy(*_args, **_kwargs):
        raise MemoryError

    monkeypatch.setattr("planner.weights.layer.decompose", greedy)
    assert_fails(run_qplan("build", source, *RANKS), 5, "out of memory")
    assert leftovers(tmp_path) == [".tiny-w4a4.qpack.unfinished"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(source, tmp_path):
    folder = tmp_path / "readonly"
    folder.mkdir(mode=0o555)
    result = run_qplan("build", source, *RANKS, "-o", folder / "out.qpack")
    assert_fails(result, 5, "Permission denied")


# Row 17


def test_an_existing_pack_is_replaced_only_by_force(source, tmp_path):
    output = tmp_path / "out.qpack"
    make_pack(output)
    before = content(output)
    assert_fails(run_qplan("build", source, *RANKS, "-o", output), 2, "exists", "--force")
    assert content(output) == before
    result = run_qplan("build", source, *RANKS, "-o", output, "--force")
    assert result.exit_code == 0, result.output
    assert verify_pack(output).manifest.producer.name == "qplan"
    assert leftovers(tmp_path) == ["out.qpack"]


def test_what_is_no_pack_is_not_replaced_even_by_force(source, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"dear")
    result = run_qplan("build", source, *RANKS, "-o", photos, "--force")
    assert_fails(result, 2, "not a pack")
    assert content(photos) == {(photos / "a.jpg").relative_to(photos): b"dear"}


def test_the_output_is_checked_before_any_weight_is_read(source, tmp_path, monkeypatch):
    (tmp_path / "out.qpack").mkdir()
    monkeypatch.setattr("planner.build.base_model.find_base_model", lambda *_, **__: 1 / 0)
    assert_fails(run_qplan("build", source, "-o", tmp_path / "out.qpack"), 2, "exists")
    result = run_qplan("build", source, "-o", tmp_path / "absent" / "out.qpack")
    assert_fails(result, 2, "does not exist")


# Prompts


def test_text_without_encoders(source, tmp_path):
    assert_fails(run_qplan("build", source, "--prompt", "a cat"), 2, "no text encoders", "--base")
    assert leftovers(tmp_path) == []


def test_a_shell_sees_the_exit_code_and_two_lines(source, tmp_path):
    command = [
        sys.executable,
        "-c",
        "from planner.cli.main import main; main()",
        "build",
        str(source),
    ]
    done = subprocess.run(
        [*command, "--target", "W1A4"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[1:] == ["hint: the nearest feasible target is W2A4"]
    assert leftovers(tmp_path) == []
