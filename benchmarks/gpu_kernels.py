"""Where the time of a block goes on a CUDA device, kernel by kernel.

    python -m benchmarks.gpu_kernels

The block with two attentions of `qrun bench`, 512 px, W4A4, ranks 32+8, batch 2, compiled and as a
CUDA graph: unquantized in bfloat16, and by both Triton backends. Times are the device's own, by
torch's profiler, milliseconds of one pass, and the kernels' count in it.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping

import torch
from torch.profiler import ProfilerActivity, profile

from artifacts.family import preset_architecture
from runtime.bench.candidates import BASELINE, Candidate, all_candidates
from runtime.bench.workload import BitWidths, Ranks, Workload
from runtime.cli.bench import PRESET
from runtime.network.family import block_family

CANDIDATES = (BASELINE, "triton bfloat16", "triton-packed bfloat16")
PASSES = 5
LISTED = 22
KINDS: Mapping[str, tuple[str, ...]] = {
    "integer products": ("product_kernel",),
    "preparing inputs": ("prepare_kernel",),
    "low-rank activations, packed": ("low_rank_kernel",),
    "attention": ("sdpa", "flash", "fmha"),
    "16-bit products": ("nvjet", "gemm", "cutlass"),
}
"""What kernels do, by a part of their names; the first that fits counts."""
REST = "norms, convolution and the rest"


def kind_of(kernel: str) -> str:
    """What a kernel of this name does."""
    return next(
        (kind for kind, parts in KINDS.items() if any(part in kernel for part in parts)), REST
    )


def by_kind(times: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Times of kernels, added up by what they do, the longest first."""
    sums: dict[str, float] = {}
    for name, milliseconds in times:
        sums[kind_of(name)] = sums.get(kind_of(name), 0.0) + milliseconds
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def kernels(candidate: Candidate, device: torch.device) -> list[tuple[str, float, int]]:
    """Name, milliseconds and calls of every kernel in a pass, the longest first."""
    architecture = preset_architecture(PRESET, None)
    family = architecture.family
    workload = Workload((512,), 2, BitWidths(4, 4), Ranks(32, 8), family.text_tokens)
    streams = workload.streams(architecture, 512)
    kind = block_family(family).kinds(architecture.config)[0]
    with torch.no_grad():
        block = candidate.make_block(
            architecture, kind, streams, device, workload.bits, workload.ranks
        )
    with torch.inference_mode():
        run = block.work(compiled=True, graphed=True)
        run()
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            for _ in range(PASSES):
                run()
            torch.cuda.synchronize()
    found = [
        (event.key, event.self_device_time_total / 1e3 / PASSES, event.count // PASSES)
        for event in profiled.key_averages()
    ]
    return sorted(found, key=lambda kernel: -kernel[1])


def main() -> int:
    """Measure and print; 1 without a device."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    ).parse_args()
    if not torch.cuda.is_available():
        print("gpu_kernels needs a CUDA device, and torch finds none", file=sys.stderr)
        return 1
    device = torch.device("cuda", torch.cuda.current_device())
    print(torch.cuda.get_device_name(device))
    for candidate in all_candidates(
        device, backends=["triton", "triton-packed"], compiling=False, peers=False
    ):
        if candidate.name not in CANDIDATES:
            continue
        if candidate.missing is not None:
            print(f"\n{candidate.name}: {candidate.missing}")
            continue
        found = kernels(candidate, device)
        print(f"\n{candidate.name}: {sum(time for _, time, _ in found):.3f} ms")
        for kind, time in by_kind((name, time) for name, time, _ in found).items():
            print(f"{time:9.3f} ms        {kind}")
        for name, time, calls in found[:LISTED]:
            print(f"{time:9.3f} ms {calls:5d}  {name[:100]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
