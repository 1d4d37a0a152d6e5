"""A full-size pack on a CUDA device: built there, and run where only so much memory is free.

    python -m benchmarks.gpu_full_size --work out/full --json docs/results/gpu_full_size.json

Weights, autoencoder and prompts are those of `benchmarks.full_size_run`: random, in the published
shapes. All but ``--free-gib`` of the device is taken by one allocation before a pack is loaded, so
that it loads and computes as on a small card. A picture of 256x256 px goes to 1024x1024 px with 2
steps and guidance, twice: the first time compiles kernels. Every way is a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.full_size_build import build, random_checkpoint
from benchmarks.full_size_run import GUIDANCE, STEPS, Size, write_base, write_pictures
from runtime.backends.triton.linear import TritonLinear
from runtime.bench.machine import machine_facts
from runtime.device_names import MEMORY
from runtime.loader import load_pipeline
from runtime.upscale import upscale_file

GIB = 2**30
FREE_GIB = (80.0, 7.5)
"""A card of its own, and what a desktop leaves of 8 GB."""


def take_all_but(free_bytes: int, device: torch.device) -> torch.Tensor:
    """One allocation that leaves so much memory on the device, or as much as there is."""
    free, _ = torch.cuda.mem_get_info(device)
    return torch.empty(max(0, free - free_bytes), dtype=torch.uint8, device=device)


def measure_one(pack: Path, picture: Path, free_gib: float, memory: str) -> dict[str, Any]:
    """Load and enlarge twice with so much memory free; sizes in GiB, beside what was taken."""
    device = torch.device("cuda")
    ballast = take_all_but(int(free_gib * GIB), device)
    torch.cuda.reset_peak_memory_stats(device)
    began = time.monotonic()
    pipeline = load_pipeline(pack=pack, device="cuda", memory=memory)
    torch.cuda.synchronize()
    loaded = time.monotonic() - began
    weights = torch.cuda.memory_allocated(device) - ballast.numel()
    settings = replace(pipeline.sampling, steps=STEPS, guidance=GUIDANCE)
    layers = [m for m in pipeline.network.modules() if isinstance(m, TritonLinear)]
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(2):
            began = time.monotonic()
            report = upscale_file(pipeline, picture, Path(folder, f"{turn}.png"), settings)
            seconds.append(round(time.monotonic() - began, 2))
    return {
        "free_gib": free_gib,
        "memory": memory,
        "weights": sorted({layer.residency for layer in layers}) or ["reference"],
        "result_px": [report.width, report.height],
        "load_s": round(loaded, 1),
        "upscale_s": seconds,
        "loaded_gib": round(weights / GIB, 2),
        "peak_gib": round((torch.cuda.max_memory_allocated(device) - ballast.numel()) / GIB, 2),
        "reserved_gib": round((torch.cuda.max_memory_reserved(device) - ballast.numel()) / GIB, 2),
    }


def main() -> int:
    """Measure and print; 1 without a device."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("out/full"), help="needs 9 GB of disk")
    parser.add_argument("--target", default="W4A4")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--free-gib", type=float, nargs="+", default=FREE_GIB)
    parser.add_argument("--memory", nargs="+", default=MEMORY, choices=MEMORY)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu_full_size needs a CUDA device, and torch finds none", file=sys.stderr)
        return 1
    work, size = arguments.work, Size(picture_px=256)
    work.mkdir(parents=True, exist_ok=True)
    pack, pictures = work / "dit4sr_random.qpack", work / "pictures-256"
    if arguments.one:
        picture = pictures / "picture.png"
        one = measure_one(pack, picture, arguments.free_gib[0], arguments.memory[0])
        print(json.dumps(one))
        return 0
    checkpoint = random_checkpoint(work, size.network)
    prompts = write_base(work / "base", size)
    write_pictures(pictures, size)
    options = ["--base", str(work / "base"), "--prompts", str(prompts), "--device", "cuda"]
    options += ["--steps", str(STEPS), "--guidance", str(GUIDANCE), "--force", "--restart"]
    result: dict[str, Any] = {
        "target": arguments.target,
        "machine": machine_facts(torch.device("cuda")),
        "build": build(checkpoint, pack, arguments.target, *options),
        "upscale": [],
    }
    for free in arguments.free_gib:
        for memory in arguments.memory:
            command = [sys.executable, "-m", "benchmarks.gpu_full_size", "--one", "--work"]
            command += [str(work), "--free-gib", str(free), "--memory", memory]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            found = {"free_gib": free, "memory": memory, "exit_code": done.returncode}
            lines = done.stdout.strip().splitlines()
            result["upscale"].append(json.loads(lines[-1]) if done.returncode == 0 else found)
            text = json.dumps(result, indent=1)
            if arguments.json:  # a run that is cut off loses little
                arguments.json.write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
