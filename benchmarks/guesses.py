"""What the network takes the picture to be at every step of sampling.

    python -m benchmarks.guesses --out docs/results

At each step the network's velocity points at an image, the mean of those that are still possible.
Decoded, these guesses show at which step detail, and what is wrong with it, comes in. The crops
of ``training.evaluate --limit 18``: prints means of every step's guess, and with ``--out`` draws
the guesses for two crops of text.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.cases import contact_sheet
from benchmarks.demo_quality.flaws import patch_peaks_db, ragged_edges_db
from benchmarks.shifted_grid import with_velocity
from runtime.images.resizing import resize
from runtime.load import load_full_precision
from runtime.network.projection import ActivationBits
from runtime.pipeline import Network, Pipeline
from runtime.upscale import decode_image, encode_image, sample_latent
from training.evaluate import means
from training.evaluation_set import Case, evaluation_set, spread
from training.network import TIMESTEPS
from training.photos.gather import default_cache

MODEL = Path("artifacts/demo/dit4sr-mini")
SHOWN = ("opencv-doc/scenetext_segmented_word03-0", "opencv-doc/scenetext_segmented_word03-1")
"""Apache-2.0 and BSD-3-Clause."""
SHEET = "guesses.jpg"
COLUMNS = 5
"""Guesses shown, spread over the steps."""
QUALITY = 88
"""Of JPEG."""


@dataclass
class Guessing:
    """A network of which every guess is kept.

    Attributes:
        network: of one picture at a time.
        guesses: the latents it pointed at, each with the share of noise it was given.
    """

    network: Network
    guesses: list[tuple[float, Tensor]] = field(default_factory=list)

    def __call__(
        self,
        noisy: Tensor,
        control: Tensor,
        embeds: Tensor,
        pooled: Tensor,
        timestep: Tensor,
        bits: ActivationBits | None,
    ) -> Tensor:
        """The velocity of ``noisy`` [n, C, h, w]; arguments are the network's."""
        velocity = self.network(noisy, control, embeds, pooled, timestep, bits)
        sigma = float(timestep[0]) / TIMESTEPS
        self.guesses.append((sigma, (noisy - sigma * velocity).float()))
        return velocity


def guesses(pipeline: Pipeline, case: Case, seed: int) -> list[tuple[float, Tensor]]:
    """Share of noise and decoded guess [1, 3, H, W] of every step, and last the result, with 0."""
    settings = replace(pipeline.sampling, seed=seed)
    watched = Guessing(pipeline.velocity)
    changed = with_velocity(pipeline, watched)
    encoded = encode_image(changed, case.small, settings)
    latent = sample_latent(changed, encoded.control, settings)
    return [
        (sigma, decode_image(changed, encoded, guess, settings).clamp(0, 1))
        for sigma, guess in [*watched.guesses, (0.0, latent)]
    ]


def measured(results: Sequence[Tensor], cases: Sequence[Case]) -> dict[str, float]:
    """Means over the crops, raggedness and the line at the patch's period among them."""
    pairs = [(r[0].numpy(), c.truth[0].numpy()) for r, c in zip(results, cases, strict=True)]
    found = means(results, cases)
    found["ragged_edges_db"] = float(np.mean([ragged_edges_db(*pair) for pair in pairs]))
    found["peak_8px_db"] = float(np.mean([patch_peaks_db(*pair)["peak_8px_db"] for pair in pairs]))
    return found


def main() -> None:
    """Measure, print, and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--photos", type=Path, default=default_cache())
    parser.add_argument("--limit", type=int, default=18, help="crops, default: %(default)s")
    parser.add_argument("--out", type=Path, help=f"folder for {SHEET}; printed only without")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    every = evaluation_set(arguments.photos, "blind")
    cases = spread(every, arguments.limit)
    pipeline = load_full_precision(arguments.model, device=torch.device("cpu"), dtype=torch.float32)
    by_case = [guesses(pipeline, case, seed) for seed, case in enumerate(cases)]
    print("| noise | PSNR, dB | FSIM | upper octave | ragged edges, dB | line at 8 px, dB |")
    print("|---|---|---|---|---|---|")
    for step in zip(*by_case, strict=True):
        found = measured([picture for _, picture in step], cases)
        print(
            f"| {step[0][0]:.3f} | {found['psnr_db']:.2f} | {found['fsim']:.3f} |"
            f" {found['upper_octave']:.2f} | {found['ragged_edges_db']:+.1f} |"
            f" {found['peak_8px_db']:+.1f} |",
            flush=True,
        )
    if arguments.out:
        by_name = {case.name: case for case in every}
        draw(pipeline, [by_name[name] for name in SHOWN], arguments.out / SHEET)


def draw(pipeline: Pipeline, cases: Sequence[Case], file: Path) -> None:
    """The guesses for ``cases``, a crop a row, between bicubic interpolation and the truth.

    The last step's, which begins with next to no noise, is the result; crop i starts from noise i.
    """
    rows, labels = [], []
    for seed, case in enumerate(cases):
        *found, _, result = guesses(pipeline, case, seed)
        shown = [found[round(place)] for place in np.linspace(0, len(found) - 1, COLUMNS)]
        labels = ["bicubic", *(f"noise {sigma:.2f}" for sigma, _ in shown), "result", "truth"]
        enlarged = resize(case.small, case.truth.shape[-2:])
        rows.append([enlarged, *(picture for _, picture in shown), result[1], case.truth])
    contact_sheet(rows, labels).save(file, quality=QUALITY)


if __name__ == "__main__":
    main()
