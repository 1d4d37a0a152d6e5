"""What the smaller comparisons share: their options, and the bundled model ready to be sampled."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.quality.measure import Bench, Sampling, make_bench, measure
from benchmarks.quality.packs import PackMaker
from runtime.dit4sr.network import DiT4SR
from runtime.sampling.bit_schedule import BitsAt

MODEL = Path("artifacts/demo/dit4sr-mini")


class SmallRun(NamedTuple):
    """One comparison: latents alone, without guidance.

    Attributes:
        arguments: of the command line.
        bench: crops, and the unquantized network's latents of them.
        maker: of packs that are sampled as the bench is.
    """

    arguments: argparse.Namespace
    bench: Bench
    maker: PackMaker


def start(
    description: str | None,
    *,
    crops: int,
    more: Callable[[argparse.ArgumentParser], object] = lambda parser: None,
) -> SmallRun:
    """Read the command line and sample the unquantized network, or read what it gave before.

    Args:
        description: for ``--help``.
        crops: how many, unless ``--crops`` says otherwise.
        more: adds options.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=MODEL, help="default: %(default)s")
    parser.add_argument("--work", type=Path, default=Path("out/quality"))
    parser.add_argument("--crops", type=int, default=crops, help="default: %(default)s")
    parser.add_argument(
        "--seeds", type=int, default=1, help="noises per crop, default: %(default)s"
    )
    parser.add_argument("--steps", type=int, default=8, help="default: %(default)s")
    more(parser)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    sampling = Sampling(
        arguments.model, arguments.crops, 128, arguments.seeds, arguments.steps, 1.0, pictures=False
    )
    bench = make_bench(sampling, arguments.work, lambda _done, _total: None)
    maker = PackMaker(
        arguments.model, arguments.work, steps=sampling.steps, guidance=sampling.guidance
    )
    return SmallRun(arguments, bench, maker)


def latent_error_db(bench: Bench, network: DiT4SR, bits_at: BitsAt) -> float:
    """Mean over crops and noises of the final latent's error against the unquantized network's."""
    values = measure(bench, network, bits_at, lambda _done, _total: None)
    per_crop = [sum(row) / len(row) for row in values["latent_db"]]
    return sum(per_crop) / len(per_crop)
