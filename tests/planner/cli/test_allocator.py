"""What the process does with memory that it gives back."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from planner.cli.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
import torch
def touch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
touch()
print(touch())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told anything")
def test_a_layers_memory_is_used_again():
    def faults(how):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    # 64 MiB are 16,384 pages, or 32 huge ones.
    assert faults("kept") < 16 <= faults("plain")
