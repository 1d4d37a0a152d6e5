"""Memory that a large picture takes, on the CPU.

    python -m benchmarks.large_image                    # 3000 x 2250 px to 12,000 x 9,000
    python -m benchmarks.large_image --whole --width 1000 --height 750
    python -m benchmarks.large_image --network          # hours: with every pass of the network

Without --network a stand-in takes the network's place, which returns zeros: its tiles are as large
for a small picture as for a large one.
Everything else is as in `qrun upscale`: reading, autoencoder, sampler, colours, writing. --whole
does without strips, as small pictures are done.
"""

import argparse
import json
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.photos import held_out_photos
from runtime import strips
from runtime.bench.machine import machine_facts
from runtime.loader import load_pipeline
from runtime.pipeline import Pipeline
from runtime.upscale import upscale_file

MODEL = Path("artifacts/demo/dit4sr-mini")


class Silent(torch.nn.Module):
    """In the network's place: the velocity is zero."""

    def forward(self, noisy: Tensor, *_rest: Any, **_named: Any) -> Tensor:
        """Zeros like ``noisy`` [B, C, h, w]."""
        return torch.zeros_like(noisy)


def write_picture(path: Path, width: int, height: int) -> None:
    """A photo, mirrored until it fills the picture."""
    pixels = (held_out_photos()["astronaut"] * 255).astype(np.uint8)
    padding = [
        (0, max(0, side - have)) for side, have in zip((height, width), pixels.shape, strict=False)
    ]
    mirrored = np.pad(pixels, [*padding, (0, 0)], mode="symmetric")
    Image.fromarray(mirrored[:height, :width]).save(path)


def measure(
    pipeline: Pipeline, width: int, height: int, *, steps: int, whole: bool
) -> dict[str, Any]:
    """Enlarge a picture of width x height px; the process's peak memory is that of all it did."""
    settings = replace(pipeline.sampling, steps=steps, color_fix="wavelet")
    if whole:
        strips.STRIP_FROM_PIXELS = width * height * 16
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.png")
        write_picture(source, width, height)
        loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.monotonic()
        report = upscale_file(pipeline, source, Path(folder, "out.png"), settings)
        seconds = time.monotonic() - began
    gib = 2**20  # Linux counts it in KiB
    return {
        "machine": machine_facts(torch.device("cpu")),
        "result_px": [report.width, report.height],
        "in_strips": not whole and strips.in_strips(height, width, settings),
        "steps": steps,
        "network": not isinstance(pipeline.network, Silent),
        "seconds": round(seconds, 1),
        "loaded_gib": round(loaded / gib, 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / gib, 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--width", type=int, default=3000)
    parser.add_argument("--height", type=int, default=2250)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--network", action="store_true")
    parser.add_argument("--whole", action="store_true")
    arguments = parser.parse_args()
    pipeline = load_pipeline(pack=None, full_precision=arguments.model, device="cpu")
    if not arguments.network:
        pipeline = replace(pipeline, network=Silent())
    print(
        json.dumps(
            measure(
                pipeline,
                arguments.width,
                arguments.height,
                steps=arguments.steps,
                whole=arguments.whole,
            ),
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
