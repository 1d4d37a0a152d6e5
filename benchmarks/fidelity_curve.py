"""What ``--fidelity`` buys: closeness to the truth against invented detail, on held-out crops.

    python -m benchmarks.fidelity_curve --limit 6

The crops and measures of ``benchmarks.detail_curve``, and its work folder's habits: a setting that
is finished is not sampled again. Prints the table.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.detail_curve import MODEL
from benchmarks.quality.measure import Sampling
from benchmarks.quality.store import RowStore, key_of
from runtime.images.resizing import resize
from runtime.load import load_full_precision
from runtime.pipeline import Pipeline
from runtime.sampling.sampler import first_step
from runtime.sampling.schedule import euler_schedule
from training.evaluate import enlarge, means
from training.evaluation_set import Case, evaluation_set, spread
from training.photos.gather import default_cache


def start_of(pipeline: Pipeline, fidelity: float) -> tuple[int, float]:
    """The step that a fidelity begins with, from 0, and its share of noise."""
    settings = pipeline.sampling
    scheduler = euler_schedule(settings.steps, settings.shift, settings.start_sigma)
    first = first_step(scheduler.sigmas[:-1], fidelity)
    return first, float(scheduler.sigmas[first])


def sample(pipeline: Pipeline, cases: Sequence[Case], fidelity: float) -> dict[str, float]:
    """Means over the crops; crop i has noise i, whatever the fidelity."""
    settings = replace(pipeline.sampling, fidelity=fidelity)
    return means(enlarge(pipeline, cases, settings), cases)


def row(words: str, found: dict[str, float]) -> str:
    """One line of the table."""
    return (
        f"| {words} | {found['psnr_db']:.2f} | {found['fsim']:.3f} | {found['ciede2000']:.2f}"
        f" | {found['upper_octave']:.2f} |"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Sample what is missing, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--photos", type=Path, default=default_cache())
    parser.add_argument("--limit", type=int, default=6, help="crops, default: %(default)s")
    parser.add_argument("--fidelity", default="0,0.25,0.5,0.75,1")
    parser.add_argument("--work", type=Path, default=Path("out/fidelity_curve"))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)

    cases = spread(evaluation_set(arguments.photos, "blind"), arguments.limit)
    pipeline = load_full_precision(arguments.model, device=torch.device("cpu"), dtype=torch.float32)
    store = RowStore(arguments.work)
    model = Sampling(arguments.model, 0, 0, 0, 0, 0.0, pictures=False).key_parts()
    print("| fidelity | begins at noise | steps | PSNR, dB | FSIM | CIEDE2000 | upper octave |")
    print("|---|---|---|---|---|---|---|")
    bicubic = [resize(case.small, case.truth.shape[-2:]) for case in cases]
    print(row("bicubic | | ", means(bicubic, cases)))
    for fidelity in map(float, arguments.fidelity.split(",")):
        first, sigma = start_of(pipeline, fidelity)
        crops = [case.name for case in cases]
        key = key_of({"model": model, "crops": crops, "first": first})
        label = f"fidelity {fidelity:g}"
        found = store.load(label, key) or store.save(label, key, sample(pipeline, cases, fidelity))
        steps = pipeline.sampling.steps - first
        print(row(f"{fidelity:g} | {sigma:.2f} | {steps}", found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
