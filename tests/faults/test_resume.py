"""Builds that stop on their way, rows 14, 15, 18 and 19 of the fault table, through ``qplan``."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from artifacts.files.output_lock import output_lock
from artifacts.pack.reader import verify_pack
from planner.build.work_folder import work_folder
from tests.artifacts.make_checkpoint import random_state, write_file
from tests.planner.run_qplan import assert_fails, leftovers, run_qplan

OPTIONS = ("--recipe", "q-dit4sr", "--global-rank", 2, "--local-rank", 2)
# Shares of all operations: while measuring, among the layers, joining them, clearing up.
KILLED = ("SIGKILL@0.02", "SIGKILL@0.13", "SIGKILL@0.42", "SIGKILL@0.94")
CLEARING = "SIGKILL@-1"
INTERRUPTED = "SIGINT@0.3"


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_file(tmp_path_factory.mktemp("source") / "tiny.safetensors", random_state())


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """What an uninterrupted build writes."""
    output = tmp_path_factory.mktemp("whole") / "a.qpack"
    assert run_qplan("build", source, *OPTIONS, "-o", output).exit_code == 0
    return content(output)


@pytest.fixture(scope="module")
def stopped(source, tmp_path_factory):
    """Folder of the packs, and how the run of each name ended."""
    folder = tmp_path_factory.mktemp("stopped") / "packs"
    folder.mkdir()
    script = Path(__file__).with_name("stopped_builds.py")
    names = ",".join((*KILLED, CLEARING, INTERRUPTED))
    done = subprocess.run(
        [sys.executable, script, folder, names, "build", source, *map(str, OPTIONS)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return folder, json.loads(done.stdout)


@pytest.fixture
def stop_at_layer(monkeypatch):
    """Raise an error in place of the factors of the so-many-th layer that is quantized."""

    def arrange(number, error):
        from planner.weights.layer import decompose

        count = 0

        def stopping(*args, **kwargs):
            nonlocal count
            count += 1
            if count == number:
                raise error
            return decompose(*args, **kwargs)

        monkeypatch.setattr("planner.weights.layer.decompose", stopping)

    return arrange


# Row 14


@pytest.mark.parametrize("name", KILLED)
def test_a_killed_build_goes_on_to_the_same_bytes(stopped, whole, source, name):
    folder, ends = stopped
    output = folder / f"{name}.qpack"
    assert ends[name] == [-signal.SIGKILL, ""]
    assert not output.exists()
    result = run_qplan("build", source, *OPTIONS, "-o", output, "--resume")
    assert result.exit_code == 0, result.output
    assert "going on with an unfinished build" in result.stderr or name == KILLED[0]
    assert content(output) == whole
    assert not [left for left in hidden(folder) if name in left]


def test_a_build_killed_while_it_cleared_up_has_its_pack(stopped, whole, source):
    folder, ends = stopped
    output = folder / f"{CLEARING}.qpack"
    assert ends[CLEARING] == [-signal.SIGKILL, ""]
    assert content(output) == whole
    assert [left for left in hidden(folder) if CLEARING in left]
    assert_fails(run_qplan("build", source, *OPTIONS, "-o", output, "--resume"), 2, "exists")
    assert content(output) == whole
    assert not [left for left in hidden(folder) if CLEARING in left]


def test_damaged_layers_are_made_anew(source, whole, tmp_path, stop_at_layer):
    output = tmp_path / "a.qpack"
    stop_at_layer(6, KeyboardInterrupt())
    assert run_qplan("build", source, *OPTIONS, "-o", output).exit_code == 130
    cut, flipped, missing, swapped, sound = sorted((work_folder(output) / "layers").iterdir())
    cut.write_bytes(cut.read_bytes()[:-1])
    data = bytearray(flipped.read_bytes())
    data[-1] ^= 1
    flipped.write_bytes(data)
    missing.unlink()
    swapped.write_bytes(sound.read_bytes())
    assert run_qplan("build", source, *OPTIONS, "-o", output, "--resume").exit_code == 0
    assert content(output) == whole


def test_damaged_variances_are_measured_again(source, whole, tmp_path, stop_at_layer):
    output = tmp_path / "a.qpack"
    stop_at_layer(2, KeyboardInterrupt())
    assert run_qplan("build", source, *OPTIONS, "-o", output).exit_code == 130
    variances = work_folder(output) / "variances.json"
    known = json.loads(variances.read_text())
    name = next(iter(known["values"]))
    known["values"][name] *= 100
    variances.write_text(json.dumps(known))
    assert run_qplan("build", source, *OPTIONS, "-o", output).exit_code == 0
    assert content(output) == whole


def test_finished_layers_are_not_made_again(source, tmp_path, monkeypatch, stop_at_layer):
    output = tmp_path / "a.qpack"
    stop_at_layer(8, KeyboardInterrupt())
    assert run_qplan("build", source, *OPTIONS, "-o", output).exit_code == 130
    from planner.build.layers import quantize_layer

    names = []

    def counted(name, *args):
        names.append(name)
        return quantize_layer(name, *args)

    monkeypatch.setattr("planner.build.layers.quantize_layer", counted)
    monkeypatch.setattr("planner.build.layers.allocation_variance", lambda *_: 1 / 0)
    result = run_qplan("build", source, *OPTIONS, "-o", output)
    assert result.exit_code == 0, result.output
    layers = verify_pack(output).layer_names
    assert names == layers[7:]
    assert "going on with an unfinished build: 7 quantized layers kept" in result.stderr


def test_nothing_to_resume_is_said(source, whole, tmp_path):
    result = run_qplan("build", source, *OPTIONS, "-o", tmp_path / "a.qpack", "--resume")
    assert result.exit_code == 0
    assert "nothing to resume: starting from the beginning" in result.stderr.splitlines()
    assert content(tmp_path / "a.qpack") == whole


# Row 15


def test_an_unfinished_build_of_something_else_is_kept(source, whole, tmp_path, stop_at_layer):
    output = tmp_path / "a.qpack"
    stop_at_layer(4, KeyboardInterrupt())
    assert run_qplan("build", source, *OPTIONS, "-o", output).exit_code == 130
    before = content(work_folder(output))
    another = write_file(tmp_path / "another.safetensors", random_state(seed=1))
    for checkpoint, options, said in (
        (source, ("--seed", 1), "seed 0 (now 1)"),
        (source, ("--target", "W3A4"), "target W4A4 (now W3A4)"),
        (source, ("--recipe", "quarot"), "recipe q-dit4sr (now quarot)"),
        (another, (), "differs in source"),
    ):
        for resume in ((), ("--resume",)):
            command = ("build", checkpoint, *OPTIONS, *options, "-o", output, *resume)
            assert_fails(run_qplan(*command), 2, said, "--restart")
            assert content(work_folder(output)) == before
    assert run_qplan("build", source, *OPTIONS, "-o", output).exit_code == 0
    assert content(output) == whole


def test_restart_throws_an_unfinished_build_away(source, whole, tmp_path, stop_at_layer):
    output = tmp_path / "a.qpack"
    stop_at_layer(4, KeyboardInterrupt())
    assert run_qplan("build", source, *OPTIONS, "--seed", 1, "-o", output).exit_code == 130
    result = run_qplan("build", source, *OPTIONS, "-o", output, "--restart")
    assert result.exit_code == 0, result.output
    assert "going on" not in result.stderr
    assert content(output) == whole
    assert_fails(run_qplan("build", source, "--resume", "--restart"), 2, "starts anew")


def test_what_is_beside_the_transformer_may_change(source, tmp_path, stop_at_layer):
    output = tmp_path / "a.qpack"
    stop_at_layer(4, KeyboardInterrupt())
    assert run_qplan("build", source, *OPTIONS, "--steps", 5, "-o", output).exit_code == 130
    assert run_qplan("build", source, *OPTIONS, "--steps", 6, "-o", output).exit_code == 0
    assert run_qplan("build", source, *OPTIONS, "--steps", 6, "-o", tmp_path / "b").exit_code == 0
    assert verify_pack(output).manifest.sampling.steps == 6
    assert content(output) == content(tmp_path / "b")


def test_a_refused_source_leaves_no_unfinished_build(tmp_path):
    state = random_state()
    state["transformer_blocks.1.ff.net.2.bias"][0] = float("nan")
    bad = write_file(tmp_path / "bad.safetensors", state)
    assert_fails(run_qplan("build", bad, *OPTIONS), 3, "ff.net.2.bias")
    assert hidden(tmp_path) == []


# Row 18


def test_a_second_builder_is_refused_at_once(source, whole, tmp_path, monkeypatch):
    output, seconds = tmp_path / "a.qpack", []

    def build_again(*args, **kwargs):
        from planner.weights.hsvd import decompose

        if not seconds:
            seconds.append(run_qplan("build", source, *OPTIONS, "-o", output))
        return decompose(*args, **kwargs)

    monkeypatch.setattr("planner.weights.layer.decompose", build_again)
    assert run_qplan("build", source, *OPTIONS, "-o", output).exit_code == 0
    assert_fails(seconds[0], 5, str(output), f"process {os.getpid()}", ".a.qpack.lock")
    assert content(output) == whole
    assert leftovers(tmp_path) == ["a.qpack"]


def test_a_calibration_is_locked_as_well(source, tmp_path):
    file = tmp_path / "c.json"
    with output_lock(file):
        result = run_qplan("calibrate", source, "--calib", tmp_path, "-o", file)
    assert_fails(result, 5, ".c.json.lock")
    assert hidden(tmp_path) == []


# Row 19


def test_an_interrupted_build_says_how_to_go_on(stopped, whole, source):
    folder, ends = stopped
    output = folder / f"{INTERRUPTED}.qpack"
    code, said = ends[INTERRUPTED]
    assert code == 130
    (line,) = said.splitlines()
    assert line.startswith("interrupted: ")
    assert line.endswith(" quantized layers kept; the same command goes on from there")
    assert [left for left in hidden(folder) if INTERRUPTED in left] == [work_folder(output).name]
    assert not output.exists()
    assert run_qplan("build", source, *OPTIONS, "-o", output).exit_code == 0
    assert content(output) == whole
    assert not [left for left in hidden(folder) if INTERRUPTED in left]
