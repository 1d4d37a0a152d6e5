"""What a tile of the autoencoder takes beside its weights, on the CPU of a Linux machine.

    python -m benchmarks.vae_memory --sides 128,256

Stable Diffusion 3.5's autoencoder with random weights encodes and decodes one tile of every side,
in a process of its own each. Printed is what the process grew by at its peak, in bytes and in
float32 maps of the tile's area with the channels of the first block, the unit of
`runtime.sampling.autoencoder.ENCODE_MAPS` and ``DECODE_MAPS``.
"""

import argparse
import ctypes
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from benchmarks.full_size_run import VAE

PASSES = ("encode", "decode")
LATENT_PX = 8
FLOAT32_BYTES = 4
CLEAR_PEAK = "5"
"""Written to ``clear_refs`` it makes the peak of resident memory what is resident now (proc(5))."""


def grown_by(work: Callable[[], object]) -> int:
    """Bytes by which resident memory grew at its peak while ``work`` ran."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text(CLEAR_PEAK)
    before = _status_bytes("VmRSS")
    work()
    return _status_bytes("VmHWM") - before


def one_tile(name: str, side: int) -> int:
    """`grown_by` of one pass over a tile of ``side`` px."""
    # As `runtime.load.load_vae` lays it out on the CPU.
    vae = AutoencoderKL(**VAE).eval().to(memory_format=torch.channels_last)
    latent = side // LATENT_PX
    work = {
        "encode": lambda: vae.encode(torch.zeros(1, 3, side, side)),
        "decode": lambda: vae.decode(torch.zeros(1, VAE["latent_channels"], latent, latent)),
    }[name]
    with torch.inference_mode():
        return grown_by(work)


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sides", default="128,256", help="px; default: %(default)s")
    parser.add_argument("--one", choices=PASSES, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    sides = [int(side) for side in arguments.sides.split(",")]
    if arguments.one:
        print(one_tile(arguments.one, sides[0]))
        return
    channels = VAE["block_out_channels"][0]
    for name in PASSES:
        for side in sides:
            command = [sys.executable, "-m", "benchmarks.vae_memory"]
            command += ["--one", name, "--sides", str(side)]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            grown = int(run.stdout)
            maps = grown / (side**2 * channels * FLOAT32_BYTES)
            print(f"{name} {side} px: {grown / 2**20:.0f} MiB, {maps:.1f} maps", flush=True)


if __name__ == "__main__":
    main()
