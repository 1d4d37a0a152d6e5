"""What the overlap of the network's tiles costs and brings, on held-out crops larger than a tile.

    python -m benchmarks.tile_overlap --pack out/demo/model.qpack

Every crop is enlarged from the same noise with every overlap; ``jump`` is what
`benchmarks.demo_quality.flaws.seam_ratio` finds at the tiles' borders, crop by crop.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.demo_quality.flaws import LATENT_PX, seam_ratio
from benchmarks.demo_quality.seams import tile_borders
from runtime.loader import load_pipeline
from runtime.sampling.tiling import tile_starts
from runtime.upscale import upscale
from training.evaluate import means
from training.evaluation_set import evaluation_set, spread
from training.photos.gather import default_cache


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--photos", type=Path, default=default_cache())
    parser.add_argument("--overlaps", default="16,8", help="latent pixels; default: %(default)s")
    parser.add_argument("--crops", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--side", type=int, default=480, help="of a crop; default: %(default)s")
    arguments = parser.parse_args(argv)
    pipeline = load_pipeline(pack=arguments.pack, device="cpu")
    cases = evaluation_set(arguments.photos, "blind", per_photo=1, side=arguments.side)
    cases = spread(cases, arguments.crops)
    for overlap in map(int, arguments.overlaps.split(",")):
        settings = replace(pipeline.sampling, overlap=overlap)
        began = time.process_time()
        results = [
            upscale(pipeline, case.small, replace(settings, seed=index))
            for index, case in enumerate(cases)
        ]
        seconds = time.process_time() - began
        places = tile_borders(arguments.side, settings.tile, overlap)
        jumps = [
            seam_ratio(result[0].numpy(), case.truth[0].numpy(), places)
            for result, case in zip(results, cases, strict=True)
        ]
        found = means(results, cases)
        tiles = len(tile_starts(arguments.side // LATENT_PX, settings.tile, overlap)) ** 2
        print(
            f"overlap {overlap}: {tiles} tiles, {seconds:.0f} processor s, PSNR"
            f" {found['psnr_db']:.2f} dB, FSIM {found['fsim']:.3f}, jump"
            f" {', '.join(f'{jump:.2f}' for jump in jumps)}",
            flush=True,
        )


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
