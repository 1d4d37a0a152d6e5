"""What importing a package may and may not bring along, seen from a fresh interpreter."""

import subprocess
import sys
from importlib.metadata import version

import pytest

LIGHT = [
    "planner.cli.main",
    "runtime.cli.main",
    "planner.cli.app",
    "runtime.cli.app",
    "schemas.errors",
    "artifacts.cli.exit_codes",
]
HEAVY = {"torch", "diffusers", "pyvips", "scipy", "transformers", "numpy", "pyiqa", "pydantic"}


def modules_after(statement: str) -> set[str]:
    """Top-level and project modules that are loaded after ``statement``."""
    code = f"{statement}; import sys; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_the_detector_sees_a_heavy_import():
    assert "numpy" in modules_after("import numpy")


@pytest.mark.parametrize("module", LIGHT)
def test_commands_start_without_heavy_imports(module):
    assert not HEAVY & modules_after(f"import {module}")


def test_the_runtime_never_loads_the_planner():
    loaded = modules_after("import runtime.load, runtime.upscale, runtime.dit4sr.network")
    assert "runtime.dit4sr.network" in loaded
    assert not any(name.split(".")[0] == "planner" for name in loaded)


def test_importing_everything_does_not_touch_cuda():
    code = "import runtime.load, planner.build.build, torch; assert not torch.cuda.is_initialized()"
    assert "planner.build.build" in modules_after(code)


@pytest.mark.parametrize("command", ["qplan", "qrun"])
def test_help_of_every_command_has_an_example(command):
    module = {"qplan": "planner.cli.main", "qrun": "runtime.cli.main"}[command]
    run = [sys.executable, "-c", f"from {module} import main; main()"]
    top = subprocess.run([*run, "--help"], capture_output=True, text=True, check=True).stdout
    commands = {
        "qplan": (
            "estimate",
            "build",
            "calibrate",
            "probe",
            "regrid",
            "inspect",
            "report",
            "diff",
            "verify",
        ),
        "qrun": ("upscale", "eval", "doctor", "bench", "tune"),
    }[command]
    for name in commands:
        assert name in top
        text = subprocess.run(
            [*run, name, "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert f"{command} {name}" in text.split("Usage", 1)[1].split("\n", 1)[1]


@pytest.mark.parametrize("module", ["planner.cli.main", "runtime.cli.main"])
def test_version_is_the_distributions(module):
    run = [sys.executable, "-c", f"from {module} import main; main()", "--version"]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == version("qdit4sr")
