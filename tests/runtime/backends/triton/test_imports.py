"""What a machine needs to check the kernels and to time them, and that Triton waits for a kernel.

`benchmarks.gpu_check` runs where neither diffusers nor pyvips nor scipy are installed, so nothing
that it imports may import them.
"""

import subprocess
import sys

import pytest

from benchmarks.gpu_check import TESTS

ABSENT = ("diffusers", "hypothesis", "pyiqa", "pyvips", "scipy", "torchvision", "transformers")
BLOCK = f"""
import os, sys
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, *arguments):
        absent = name.split(".")[0] in {ABSENT}
        return None if absent else self.finder.find_spec(name, *arguments)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
BENCH = """
from runtime.cli import app, bench
from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.family import FAMILY
from artifacts.family import Architecture
config = TransformerConfig(sample_size=16, num_layers=2, num_attention_heads=2,
                           attention_head_dim=16, joint_attention_dim=24, caption_projection_dim=32,
                           pooled_projection_dim=16, pos_embed_max_size=32,
                           dual_attention_layers=(0,))
bench.network_to_measure = lambda: (Architecture(FAMILY, config, "q"), 3)
sys.argv = ["qrun", "bench", "--device=cpu", "--rounds=1", "--no-compile", "-o", {out!r}]
app.app()
"""


def run(code):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )


def test_the_block_holds():
    for name in ABSENT:
        done = run(f"{BLOCK}\nimport {name}")
        assert done.returncode == 1
        assert f"No module named {name!r}" in done.stderr


def test_the_checks_own_tests_are_collected():
    pytest.importorskip("triton")
    done = run(
        f"{BLOCK}\nimport benchmarks.gpu_check, pytest\n"
        f"sys.exit(pytest.main(['--collect-only', '-q', *{TESTS!r}]))"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_every_dtype" in done.stdout
    assert "test_replays_equal_the_pass" in done.stdout


def test_a_module_that_needs_more_is_noticed():
    """The control: a test that builds a whole network is not collected there."""
    pytest.importorskip("triton")
    done = run(
        f"{BLOCK}\nimport pytest\n"
        "sys.exit(pytest.main(['--collect-only', '-q', 'tests/runtime/network']))"
    )
    assert done.returncode != 0
    assert "No module named 'diffusers'" in done.stdout


def test_the_measurement_runs(tmp_path):
    done = run(BLOCK + BENCH.format(out=str(tmp_path / "bench.json")))
    assert done.returncode == 0, done.stderr
    assert "times faster than ..., whole step" in done.stdout
    assert (tmp_path / "bench.json").is_file()


def test_tile_sizes_can_be_measured():
    pytest.importorskip("triton")
    done = run(f"{BLOCK}\nimport runtime.cli.tune, runtime.bench.tile_tuning")
    assert done.returncode == 0, done.stderr


def test_triton_waits_until_a_kernel_runs():
    code = (
        "import sys, torch.library; before = 'triton' in sys.modules\n"
        "import runtime.backends.triton.linear, runtime.backends\n"
        "assert before or 'triton' not in sys.modules\n"
        "assert not any(name.endswith('_kernel') for name in sys.modules)\n"
        "import torch; assert not torch.cuda.is_initialized()"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
