"""What 8-bit activations give a pack whose bit grid has fewer.

    python -m benchmarks.quality.activation_width

Devices that multiply 8-bit integers anyway, as all backends here do, save little or no time by
narrower activations, so `--activation-bits 8` costs next to nothing there. Packs of the bundled
model by recipe `standard` and by the paper's, W4A4, run with their bit grid and at 8 bits
everywhere. Prints the final latent's error against the unquantized network from the same noise, the
pictures' PSNR against its pictures, both in dB, mean over crops, and what the 8 bits change, with a
95 % interval.
"""

import torch

from benchmarks.cases import psnr_db
from benchmarks.quality.intervals import Table, paired_difference, per_image, relative_error_db
from benchmarks.quality.measure import Bench
from benchmarks.quality.rows import MAIN_TARGETS, Row, recipe_rows
from benchmarks.quality.small_run import start
from runtime.bench.workload import Ranks
from runtime.network.family import LatentNetwork
from runtime.sampling.bit_schedule import BitsAt, constant_bits

TARGET = MAIN_TARGETS[0]
RECIPES = ("standard", "q-dit4sr")
RANKS = Ranks(4, 2)
WIDTH = 8
METRICS = ("latent", "picture")


def chosen_rows() -> list[Row]:
    """The packs that are measured."""
    rows = {row.name: row for row in recipe_rows(TARGET, RANKS, second=False)}
    return [rows[name] for name in RECIPES]


@torch.inference_mode()
def errors_db(bench: Bench, network: LatentNetwork, bits_at: BitsAt) -> dict[str, Table]:
    """By metric, the values of every crop and noise."""
    found: dict[str, Table] = {metric: [] for metric in METRICS}
    for case in range(len(bench.cases)):
        latents, pictures = [], []
        for seed in range(bench.sampling.seeds):
            latent = bench.sample(network, bits_at, case, seed)
            latents.append(relative_error_db(bench.references[case][seed], latent))
            picture = bench.picture(latent, case)
            pictures.append(psnr_db(picture, bench.reference_picture(case, seed)))
        found["latent"].append(latents)
        found["picture"].append(pictures)
    return found


def main() -> None:
    """Measure and print."""
    _, bench, maker = start(__doc__, crops=16)
    for row in chosen_rows():
        with maker.pack(row) as pack:
            quantized = maker.load(pack)
        grid = errors_db(bench, quantized.network, quantized.bits_at)
        wide = errors_db(bench, quantized.network, constant_bits(quantized.bits_at, WIDTH))
        for metric in METRICS:
            change = paired_difference(wide[metric], grid[metric])
            before, after = (per_image(values[metric]).mean() for values in (grid, wide))
            print(
                f"{row.name:10} {metric:8} grid {before:6.2f} dB, {WIDTH} bits {after:6.2f} dB,"
                f" {change.mean:+.2f} [{change.low:+.2f}, {change.high:+.2f}]",
                flush=True,
            )


if __name__ == "__main__":
    main()
