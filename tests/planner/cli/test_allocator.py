"""What the process does with memory that it gives back."""

import subprocess
import sys

SCRIPT = """
from planner.cli.allocator import keep_freed_memory
keep_freed_memory()
keep_freed_memory()
import torch
assert all(float(torch.ones(2**24)[-1]) == 1 for _ in range(3))
print("fine")
"""


def test_a_process_that_keeps_its_memory_works_as_before():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stdout == "fine\n"
