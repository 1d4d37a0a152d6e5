"""What a table of modulations gains, and what another prompt loses with it.

    python -m benchmarks.quality.modulation

Prints, for the bundled model, the rounding error of the table's rows in float16 and in bfloat16;
then, in dB of the final latent from the same noise, mean over crops: the error of packs of recipe
`q-dit4sr-no-vatmp`, ranks 4 and 2, with the layers' weights, with the table, and with both; and the
distance of the unquantized network's results with the pack's own prompt, and with another prompt's
text tokens beside the own pooled vector, from its results with the other prompt as a whole. The
other prompt is the model's negative one.
"""

from dataclasses import replace

import torch

from benchmarks.quality.intervals import paired_difference, per_image, relative_error_db
from benchmarks.quality.measure import SEEDS_PER_CASE, Bench, measure
from benchmarks.quality.packs import PackMaker
from benchmarks.quality.rows import Row
from benchmarks.quality.small_run import start
from planner.build.modulation import table_record, table_rows
from planner.build.progress import Silent
from planner.recipes import recipe_settings
from planner.target import parse_target
from runtime.pipeline import Prompts
from runtime.sampling.bit_schedule import BitSchedule
from runtime.upscale import sample_latent

CHOICES = ("weights", "table", "both")


def main() -> None:
    """Measure and print."""
    _, bench, maker = start(__doc__, crops=8)
    print_rounding(maker)
    first = None
    for choice in CHOICES:
        row = Row(
            "W4A4",
            f"modulation-{choice}",
            choice,
            "Q-DiT4SR",
            recipe="q-dit4sr-no-vatmp",
            overrides={"global_rank": 4, "local_rank": 2, "modulation": choice},
        )
        with maker.pack(row) as pack:
            network = maker.load(pack).network
            values = measure(bench, network, BitSchedule(pack.bit_grid), lambda *_: None)[
                "latent_db"
            ]
            size = pack.manifest.transformer_bytes.pack
        first = values if first is None else first
        change = paired_difference(values, first)
        print(
            f"{choice:8} {per_image(values).mean():6.2f} dB, {change.mean:+.2f}"
            f" [{change.low:+.2f}, {change.high:+.2f}], {size:,} bytes",
            flush=True,
        )
    print_prompts(bench)


@torch.inference_mode()
def print_rounding(maker: PackMaker) -> None:
    """What 16 bits make of all rows."""
    settings = recipe_settings("q-dit4sr", parse_target("W4A4"), modulation="table")
    record = table_record(settings, maker.base)
    assert record is not None
    checkpoint = maker.checkpoint
    found = table_rows(checkpoint, checkpoint.architecture(), record, maker.base, Silent())
    rows = torch.cat([values.flatten() for _, values in found])
    for dtype in (torch.float16, torch.bfloat16):
        print(f"rows in {dtype}: {relative_error_db(rows, rows.to(dtype)):.2f} dB", flush=True)


def print_prompts(bench: Bench) -> None:
    """How far results are from those of the other prompt."""
    own = bench.pipeline.prompts
    other = replace(own, positive_embeds=own.negative_embeds, positive_pooled=own.negative_pooled)
    mixed = replace(other, positive_pooled=own.positive_pooled)
    for label, prompts in (("own prompt", own), ("other tokens, own pooled", mixed)):
        values = [
            [distance_db(bench, prompts, other, case, seed) for seed in range(bench.sampling.seeds)]
            for case in range(len(bench.cases))
        ]
        print(f"{label:26} {per_image(values).mean():6.2f} dB from the other prompt's", flush=True)


@torch.inference_mode()
def distance_db(bench: Bench, prompts: Prompts, other: Prompts, case: int, seed: int) -> float:
    """Signal to difference of two latents from the same noise."""
    settings = replace(bench.settings, seed=case * SEEDS_PER_CASE + seed)
    found, expected = (
        sample_latent(
            replace(bench.pipeline, prompts=chosen), bench.encoded[case].control, settings
        )
        for chosen in (prompts, other)
    )
    return relative_error_db(expected, found)


if __name__ == "__main__":
    main()
