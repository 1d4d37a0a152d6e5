"""Whether a patch grid that moves between sampling steps takes the roughness along the grid away.

    python -m benchmarks.shifted_grid

The network sees a latent in patches of 2 x 2, so that its errors repeat with them. Here every
second step it sees latent and control moved by one latent pixel down and right, wrapped around at
the borders, and the velocity is moved back. The crops of ``training.evaluate --limit 18``, with and
without; prints distances to the truth, and how far the error's spectrum stands out at the patch's
period (8 px) and the latent pixel's (4 px).
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.demo_quality.flaws import patch_peaks_db
from runtime.load import load_full_precision
from runtime.network.projection import ActivationBits
from runtime.pipeline import Network, Pipeline
from training.evaluate import enlarge, means, with_prompts
from training.evaluation_set import Case, evaluation_set, spread
from training.photos.gather import default_cache
from training.prompts import NAMES

MODEL = Path("artifacts/demo/dit4sr-mini")
NEGATIVE = "low quality"


class ShiftedGrid:
    """A network that sees its latents moved by one pixel at every second timestep.

    Args:
        network: of one picture at a time; the first timestep of a picture is the highest.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._last = -1.0
        self._is_moved = True

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
        now = float(timestep[0])
        if now != self._last:
            is_new_picture = now > self._last
            self._is_moved = not is_new_picture and not self._is_moved
            self._last = now
        if not self._is_moved:
            return self.network(noisy, control, embeds, pooled, timestep, bits)
        there, back = (-1, -1), (1, 1)
        moved = self.network(
            noisy.roll(there, (-2, -1)),
            control.roll(there, (-2, -1)),
            embeds,
            pooled,
            timestep,
            bits,
        )
        return moved.roll(back, (-2, -1))


def with_velocity(pipeline: Pipeline, velocity: Network) -> Pipeline:
    """``pipeline`` sampled by another ``velocity``."""
    changed = replace(pipeline)
    # Where `cached_property` keeps it.
    changed.__dict__["velocity"] = velocity
    return changed


def measured(pipeline: Pipeline, cases: Sequence[Case]) -> dict[str, float]:
    """Means over the crops; crop i starts from noise i."""
    settings = pipeline.sampling.override(patch_size=pipeline.patch_size)
    results = enlarge(pipeline, cases, settings)
    peaks = [
        patch_peaks_db(result[0].numpy(), case.truth[0].numpy())
        for result, case in zip(results, cases, strict=True)
    ]
    lines = {name: float(np.mean([peak[name] for peak in peaks])) for name in peaks[0]}
    return means(results, cases) | lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--photos", type=Path, default=default_cache())
    parser.add_argument("--limit", type=int, default=18, help="crops, default: %(default)s")
    parser.add_argument("--prompts", nargs="+", choices=NAMES, default=["natural", "sharp"])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cases = spread(evaluation_set(arguments.photos, "blind"), arguments.limit)
    plain = load_full_precision(arguments.model, device=torch.device("cpu"), dtype=torch.float32)
    print("| prompt | grid | PSNR, dB | FSIM | upper octave | line at 8 px, dB | at 4 px, dB |")
    print("|---|---|---|---|---|---|---|")
    for prompt in arguments.prompts:
        fixed = with_prompts(plain, arguments.model, prompt, NEGATIVE)
        for grid, pipeline in (
            ("fixed", fixed),
            ("moving", with_velocity(fixed, ShiftedGrid(fixed.velocity))),
        ):
            found = measured(pipeline, cases)
            print(
                f"| {prompt} | {grid} | {found['psnr_db']:.2f} | {found['fsim']:.3f} |"
                f" {found['upper_octave']:.2f} | {found['peak_8px_db']:+.1f} |"
                f" {found['peak_4px_db']:+.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
