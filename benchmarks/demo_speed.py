"""The demo's photo on the CPU: the fast backend against the reference.

    make demo
    python -m benchmarks.demo_speed --pack out/demo/model.qpack

Each backend is loaded as `qrun upscale` loads it, in the number format it would take. They take
turns at the whole photo, from pixels to pixels; reading, writing and the start of Python are not in
it. Prints medians, in seconds, of the whole and of sampling alone, with the lowest and the highest.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from runtime.bench.machine import machine_facts
from runtime.bench.timing import Spread
from runtime.images.image_io import read_image
from runtime.loader import load_pipeline
from runtime.upscale import decode_image, encode_image, sample_latent

PHOTO = Path("artifacts/demo/photo.png")
BACKENDS = ("cpu", "reference")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--photo", type=Path, default=PHOTO)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the result here too")
    arguments = parser.parse_args()

    pipelines = {
        name: load_pipeline(pack=arguments.pack, device="cpu", backend=name) for name in BACKENDS
    }
    rgb = read_image(arguments.photo).rgb
    times: dict[str, dict[str, list[float]]] = {
        name: {"whole": [], "sampling": []} for name in BACKENDS
    }
    for turn in range(arguments.rounds + 1):
        for name, pipeline in pipelines.items():
            settings = pipeline.sampling.override(patch_size=pipeline.patch_size)
            began = time.perf_counter()
            encoded = encode_image(pipeline, rgb, settings)
            between = time.perf_counter()
            latent = sample_latent(pipeline, encoded.control, settings)
            sampled = time.perf_counter()
            decode_image(pipeline, encoded, latent, settings)
            ended = time.perf_counter()
            if turn:  # the first warms up
                times[name]["whole"].append(ended - began)
                times[name]["sampling"].append(sampled - between)

    result: dict[str, Any] = {"machine": machine_facts(torch.device("cpu")), "seconds": {}}
    spreads = {
        name: {part: Spread.of(seconds) for part, seconds in parts.items()}
        for name, parts in times.items()
    }
    for name, parts in spreads.items():
        dtype = str(pipelines[name].dtype).removeprefix("torch.")
        result["seconds"][f"{name}, {dtype}"] = {
            part: {which: round(seconds, 3) for which, seconds in asdict(spread).items()}
            for part, spread in parts.items()
        }
    fast, slow = (spreads[name] for name in BACKENDS)
    result["times_faster"] = {
        part: round(slow[part].median / fast[part].median, 2) for part in fast
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
