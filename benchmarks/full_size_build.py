"""Build a pack from a full-size checkpoint: time, peak memory, bytes on disk.

    python -m benchmarks.full_size_build --work out/full --json out/full/result.json

DiT4SR's published weights cannot be part of this project, so a checkpoint of random weights in its
exact shapes and dtype (bfloat16, position table included) is written first, 5.9 GB. Random weights
are the worst case for the factors' accuracy and the same work as real ones. ``qplan build`` and
``qplan verify`` then run as commands of their own, and the operating system's account of them is
printed.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import torch

from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.layout import POSITION_TABLE, tensor_shapes
from artifacts.dit4sr.position_table import sincos_table
from artifacts.files.safetensors_io import Entry, TensorSpec, tensor_bytes, write_safetensors
from planner.recipes import PAPER_RECIPE
from runtime.bench.machine import machine_facts

SEED = 0
QPLAN = (sys.executable, "-c", "from planner.cli.main import main; main()")


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


def run(command: list[str], *, stdout: IO[str] | None = None) -> dict[str, float]:
    """Run a command and return its wall and processor seconds and peak resident memory in GiB."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=stdout)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
    return {
        "wall_s": time.monotonic() - began,
        "processor_s": usage.ru_utime + usage.ru_stime,
        "peak_gib": usage.ru_maxrss / 2**20,  # Linux counts it in KiB
    }


def random_checkpoint(work: Path, config: TransformerConfig) -> Path:
    """A checkpoint of random weights in the folder ``work``, written unless it is there.

    By a process of its own: a command's peak memory counts what its parent held.
    """
    path = work / "dit4sr_random.safetensors"
    if not path.exists():
        arguments = (path, config)
        writer = multiprocessing.get_context("spawn").Process(
            target=write_random_checkpoint, args=arguments
        )
        writer.start()
        writer.join()
        if writer.exitcode:
            raise SystemExit(f"{path} could not be written")
    return path


def build(checkpoint: Path, pack: Path, target: str, *options: str) -> dict[str, float]:
    """Run ``qplan build`` of the recipe that reads weights alone, and return what it took."""
    asked = ("--recipe", PAPER_RECIPE, "--target", target)
    return run([*QPLAN, "build", str(checkpoint), *asked, "-o", str(pack), *options])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("out/full"), help="needs 8 GB of disk")
    parser.add_argument("--target", default="W4A4")
    parser.add_argument("--effort", help="of the build (default: its own)")
    parser.add_argument("--json", type=Path, help="write the result here too")
    arguments = parser.parse_args()
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    checkpoint, pack = random_checkpoint(work, TransformerConfig()), work / "dit4sr_random.qpack"

    effort = ["--effort", arguments.effort] if arguments.effort else []
    took = build(checkpoint, pack, arguments.target, "--force", *effort)
    verify = run([*QPLAN, "verify", str(pack)])
    pack_bytes = sum(file.stat().st_size for file in pack.rglob("*") if file.is_file())
    source_bytes = checkpoint.stat().st_size
    result = {
        "target": arguments.target,
        "machine": machine_facts(torch.device("cpu")),
        "effort": arguments.effort or "normal",
        "build": took,
        "verify": verify,
        "checkpoint_bytes": source_bytes,
        "pack_bytes": pack_bytes,
        "ratio": pack_bytes / source_bytes,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
