"""The kernels need torch, Triton, numpy and safetensors alone, and Triton only when they run."""

import subprocess
import sys

import pytest

ABSENT = ("diffusers", "pydantic", "pyvips", "scipy", "typer", "rich", "transformers")
BLOCK = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Absent())
"""


def run(code):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )


def test_the_block_holds():
    done = run(f"{BLOCK}\nimport pydantic")
    assert done.returncode == 1
    assert "No module named 'pydantic'" in done.stderr


@pytest.mark.parametrize(
    "modules",
    [
        "runtime.backends.triton.linear, runtime.backends.triton.launch,"
        " runtime.backends.triton.plain, runtime.backends.triton.graphs,"
        " runtime.backends.triton.graphed_network, runtime.backends.triton.tune",
        "benchmarks.gpu_check, benchmarks.gpu.parity, benchmarks.gpu.products,"
        " benchmarks.gpu.step, benchmarks.gpu.report",
    ],
)
def test_nothing_else_is_needed(modules):
    pytest.importorskip("triton")
    done = run(f"{BLOCK}\nimport {modules}")
    assert done.returncode == 0, done.stderr


def test_triton_waits_until_a_kernel_runs():
    code = (
        "import sys, torch.library; before = 'triton' in sys.modules\n"
        "import runtime.backends.triton.linear, runtime.backends.triton.adapter\n"
        "assert before or 'triton' not in sys.modules\n"
        "assert not any(name.endswith('_kernel') for name in sys.modules)\n"
        "import torch; assert not torch.cuda.is_initialized()"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
