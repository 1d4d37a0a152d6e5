"""Build a pack from a full-size checkpoint: wall time, peak memory, bytes on disk.

    python -m benchmarks.full_size_build --work out/full --json out/full/result.json

DiT4SR's published weights cannot be part of this project, so a checkpoint of random weights in its
exact shapes and dtype (bfloat16, position table included) is written first, 5.9 GB. Random weights
are the worst case for the factors' accuracy and the same work as real ones. ``qplan build`` and
``qplan verify`` then run as commands of their own, and the operating system's account of them is
printed.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.layout import POSITION_TABLE, tensor_shapes
from artifacts.dit4sr.position_table import sincos_table
from artifacts.files.safetensors_io import Entry, TensorSpec, tensor_bytes, write_safetensors

SEED = 0


def write_random_checkpoint(path: Path, config: TransformerConfig) -> None:
    """Write normal weights of standard deviation 0.02, one tensor at a time."""

    def entry(index: int, name: str, shape: tuple[int, ...]) -> Entry:
        def chunks() -> Iterable[memoryview]:
            if name == POSITION_TABLE:
                return [tensor_bytes(sincos_table(config).bfloat16())]
            generator = torch.Generator().manual_seed(SEED + index)
            return [tensor_bytes((torch.randn(shape, generator=generator) * 0.02).bfloat16())]

        return Entry(TensorSpec("BF16", shape), chunks)

    shapes = tensor_shapes(config)
    write_safetensors(
        path, {name: entry(i, name, shape) for i, (name, shape) in enumerate(shapes.items())}
    )


def run(command: list[str]) -> dict[str, float]:
    """Run a command and return its wall seconds and peak resident memory in GiB."""
    began = time.monotonic()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    # Linux counts ru_maxrss in KiB.
    return {"wall_s": time.monotonic() - began, "peak_gib": usage.ru_maxrss / 2**20}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("out/full"), help="needs 8 GB of disk")
    parser.add_argument("--target", default="W4A4")
    parser.add_argument("--json", type=Path, help="write the result here too")
    arguments = parser.parse_args()
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    checkpoint, pack = work / "dit4sr_random.safetensors", work / "dit4sr_random.qpack"
    if not checkpoint.exists():
        write_random_checkpoint(checkpoint, TransformerConfig())

    qplan = [sys.executable, "-c", "from planner.cli.main import main; main()"]
    target = ["--target", arguments.target, "-o", str(pack), "--force"]
    build = run([*qplan, "build", str(checkpoint), *target])
    verify = run([*qplan, "verify", str(pack)])
    pack_bytes = sum(file.stat().st_size for file in pack.rglob("*") if file.is_file())
    source_bytes = checkpoint.stat().st_size
    result = {
        "target": arguments.target,
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "memory_gib": round(
                os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1
            ),
            "torch": torch.__version__,
        },
        "build": build,
        "verify": verify,
        "checkpoint_bytes": source_bytes,
        "pack_bytes": pack_bytes,
        "ratio": pack_bytes / source_bytes,
        "own_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
