"""Commands that were killed when their output was in place: the same command clears up."""

import os
import shutil

import pytest

from artifacts.files.output_lock import lock_file, output_lock
from planner.build.work_folder import WorkFolder, work_folder
from tests.artifacts.make_checkpoint import random_state, write_folder
from tests.planner.calibration_setup import make_setup
from tests.planner.run_qplan import assert_fails, run_qplan

RANKS = ("--global-rank", 2, "--local-rank", 2)


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    return make_setup(tmp_path_factory.mktemp("inputs"), images=1)


@pytest.fixture
def killed_at_the_end(monkeypatch):
    """Run a command that dies before it clears up, and leaves its lock."""

    def run(*command):
        output = command[-1]
        with monkeypatch.context() as patched:
            patched.setattr(WorkFolder, "remove", lambda _: None)
            assert run_qplan(*command).exit_code == 0
        lock_file(output).write_text("1\n")

    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def commands(setup, tmp_path):
    inputs = (setup.checkpoint, "--base", setup.base, *RANKS)
    calib = ("--recipe", "q-dit4sr", "--calib", setup.images)
    return {
        "build": ("build", *inputs, "-o", tmp_path / "a.qpack"),
        "calibrated build": ("build", *inputs, *calib, "-o", tmp_path / "a.qpack"),
        "calibrate": ("calibrate", *inputs, *calib, "-o", tmp_path / "a.json"),
    }


@pytest.mark.parametrize("name", ["build", "calibrated build", "calibrate"])
def test_what_is_finished_is_left_alone_and_the_rest_goes(setup, tmp_path, killed_at_the_end, name):
    command = commands(setup, tmp_path)[name]
    output = command[-1]
    killed_at_the_end(*command)
    assert names(tmp_path) == sorted(
        [output.name, work_folder(output).name, lock_file(output).name]
    )
    assert_fails(run_qplan(*command), 2, "exists")
    assert names(tmp_path) == [output.name]


def test_an_unfinished_build_without_a_plan_goes(setup, tmp_path, killed_at_the_end):
    command = commands(setup, tmp_path)["build"]
    output = command[-1]
    killed_at_the_end(*command)
    (work_folder(output) / "plan.json").unlink()
    assert_fails(run_qplan(*command), 2, "exists")
    assert names(tmp_path) == [output.name]


def test_an_interrupted_replacement_is_kept(setup, tmp_path, killed_at_the_end, monkeypatch):
    command = commands(setup, tmp_path)["build"]
    output = command[-1]
    killed_at_the_end(*command)
    # As if that of the same command with --force: begun after the pack was finished.
    later = (output / "manifest.json").stat().st_mtime_ns + 10**9
    os.utime(work_folder(output) / "plan.json", ns=(later, later))
    assert_fails(run_qplan(*command), 2, "exists")
    assert names(tmp_path) == [work_folder(output).name, output.name]


def test_an_unfinished_build_of_something_else_is_kept(setup, tmp_path, killed_at_the_end):
    command = commands(setup, tmp_path)["build"]
    output = command[-1]
    killed_at_the_end(*command)
    other = write_folder(tmp_path / "other", random_state(seed=1))
    shutil.rmtree(output)
    built = run_qplan("build", other, *RANKS, "-o", tmp_path / "b.qpack")
    assert built.exit_code == 0
    (tmp_path / "b.qpack").rename(output)
    assert_fails(run_qplan(*command), 2, "exists")
    assert work_folder(output).name in names(tmp_path)


def test_what_another_process_is_making_is_kept(setup, tmp_path, killed_at_the_end):
    command = commands(setup, tmp_path)["build"]
    output = command[-1]
    killed_at_the_end(*command)
    with output_lock(output):
        assert_fails(run_qplan(*command), 2, "exists")
        assert names(tmp_path) == sorted(
            [output.name, work_folder(output).name, lock_file(output).name]
        )


def test_regrid_clears_its_lock(setup, tmp_path):
    pack, output = tmp_path / "a.qpack", tmp_path / "b.qpack"
    assert run_qplan("build", setup.checkpoint, *RANKS, "-o", pack).exit_code == 0
    command = ("regrid", pack, "--set", "ff=A8", "-o", output)
    assert run_qplan(*command).exit_code == 0
    lock_file(output).write_text("1\n")
    assert_fails(run_qplan(*command), 2, "exists")
    assert names(tmp_path) == ["a.qpack", "b.qpack"]
