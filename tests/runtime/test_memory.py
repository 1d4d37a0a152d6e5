"""What happens when memory runs out."""

import os
import platform
from pathlib import Path

import pytest
import torch

from runtime.memory import is_out_of_memory, return_freed_memory, with_smaller_tiles
from schemas.errors import ResourceError


def test_memory_that_runs_out_is_answered_with_smaller_tiles(caplog):
    tried = []

    def run(tile):
        tried.append(tile)
        if tile > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tile

    assert with_smaller_tiles(run, 60, 16, 2, "sampling") == 16
    assert tried == [60, 30, 16]
    assert "tiles of 60; trying 30" in caplog.text


def test_memory_that_never_suffices_is_a_resource_error():
    def run(_tile):
        raise MemoryError

    with pytest.raises(ResourceError, match="even with tiles of 16"):
        with_smaller_tiles(run, 64, 16, 2, "sampling")
    # A start under the floor is not raised to it.
    with pytest.raises(ResourceError, match="even with tiles of 8"):
        with_smaller_tiles(run, 8, 16, 2, "sampling")


def test_other_errors_are_not_taken_for_missing_memory():
    def run(_tile):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        with_smaller_tiles(run, 64, 16, 2, "sampling")
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))


def test_the_cpu_allocator_really_says_what_is_looked_for():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's heap")
def test_freed_memory_goes_back_to_the_system():
    """Many blocks, every second one freed: the heap's end stays in use."""

    def resident_mib() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") // 2**20

    blocks = [bytearray(b"x" * 100_000) for _ in range(1000)]
    del blocks[::2]
    before = resident_mib()
    return_freed_memory()
    assert before - resident_mib() >= 40
