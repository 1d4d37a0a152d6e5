"""Where the time of a layer goes: a clock around every part."""

import pytest
import torch

from runtime.backends.cpu.kernels import native_kernels
from runtime.backends.cpu.linear import CpuLinear
from runtime.bench.candidates import all_candidates
from runtime.bench.parts import PARTS, REST, Clock, clocked, part_times
from runtime.dit4sr.measured_blocks import block_kinds
from tests.architectures import dit4sr
from tests.runtime.bench.small_network import (
    BITS,
    CPU,
    RANKS,
    STREAMS,
    TINY,
    needs_cpu_backend,
)


def test_a_clock_takes_off_what_is_inside():
    now = iter([0.0, 1.0, 4.0, 6.0])
    clock = Clock(lambda: next(now))
    inner = clock.around("inner", lambda: None)
    clock.around("outer", inner)()
    assert clock.seconds == {"inner": 3.0, "outer": 3.0}


@needs_cpu_backend
def test_every_part_of_the_cpu_backend_has_its_clock():
    """A backend that was rearranged needs other names in `PARTS`."""
    kind = block_kinds(TINY)[0]
    candidate = next(
        one
        for one in all_candidates(CPU, backends=None, compiling=False, peers=True)
        if one.name == "cpu bfloat16"
    )
    block = candidate.make_block(dit4sr(TINY), kind, STREAMS, CPU, BITS, RANKS)
    with torch.inference_mode():
        times = part_times(block.work(), rounds=2, now=iter(range(10**6)).__next__, products=1000)
    assert times.missing == []
    native = native_kernels().kernels is not None
    theirs = {"rotation and codes"} if native else {"rotation", "codes", "sums", "gelu"}
    assert set(times.parts) == {"factors", "integer products", "attention", REST} | theirs
    assert times.whole == pytest.approx(sum(times.parts.values()))
    assert times.integer_gops is not None


def test_functions_are_put_back_and_absent_ones_are_named():
    absent = ("fusion", "runtime.backends.cpu.linear", "CpuLinear.no_such_pass")
    nowhere = ("fusion", "runtime.backends.cpu.linear", "NoSuchClass.pass_")
    before = (CpuLinear.prepare, torch.nn.functional.gelu)
    with clocked(Clock(lambda: 0.0), (*PARTS, absent, nowhere)) as missing:
        assert CpuLinear.prepare is not before[0]
        assert missing[-2:] == [
            "runtime.backends.cpu.linear.CpuLinear.no_such_pass",
            "runtime.backends.cpu.linear.NoSuchClass.pass_",
        ]
    assert (CpuLinear.prepare, torch.nn.functional.gelu) == before
