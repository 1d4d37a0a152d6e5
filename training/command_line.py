"""What `python -m training` can be told."""

import argparse
from pathlib import Path
from typing import get_args

import torch

from training import closing, refined_decoder
from training.network import AVERAGE_DECAYS
from training.networks import MINI, NETWORKS
from training.optimizers import OptimizerName
from training.photos.gather import default_cache
from training.pulls import Pulls
from training.schedule import DECAY_SHARE
from training.shards import SHARD

STAGES = ("autoencoder", "decoder", "network", "one-step", "refine", "closing", "export", "all")
SHARDS = 80


def parse_arguments(description: str | None = None) -> argparse.Namespace:
    """Read the command line; ``--help`` begins with ``description``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "stage",
        nargs="?",
        choices=STAGES,
        default="all",
    )
    parser.add_argument("--out", type=Path, default=Path("out/train"), help="states")
    parser.add_argument("--photos", type=Path, default=default_cache(), help="gathered photos")
    parser.add_argument("--network", choices=tuple(NETWORKS), default=MINI.name)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument(
        "--optimizer", choices=get_args(OptimizerName), help="of network and one-step"
    )
    parser.add_argument("--steps", type=int, help="of the stage, in all")
    parser.add_argument("--decay", type=int, help="the last steps, with a falling rate")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--within", type=float, help="minutes, instead of --steps")
    parser.add_argument(
        "--decay-share", type=float, default=DECAY_SHARE, help="of the minutes of --within"
    )
    parser.add_argument(
        "--start", type=Path, help="exported model that network and one-step begin with"
    )
    parser.add_argument(
        "--from",
        dest="networks",
        type=Path,
        nargs="+",
        help="exported models whose results refine and closing train on; default: that of --out",
    )
    parser.add_argument(
        "--shards",
        type=int,
        default=SHARDS,
        help=f"of {SHARD} such results, closing has as many of larger ones, or none on\n"
        "a GPU; default: %(default)s",
    )
    parser.add_argument(
        "--pull",
        type=_pull,
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME=FACTOR",
        help="how hard an error of detail pulls at the pictures; default of refine:\n"
        f"{_pulls(refined_decoder.PULLS)},\nof closing:\n{_pulls(closing.PULLS)}",
    )
    parser.add_argument("--sigma", type=float, help="share of noise that one-step begins with")
    parser.add_argument("--workers", type=int, help="processes that prepare pictures for a GPU")
    parser.add_argument(
        "--average", type=float, default=AVERAGE_DECAYS[0], help="decay of the exported average"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="of the exported model; refine and closing replace its part, by default none",
    )
    return parser.parse_args()


def _pull(text: str) -> tuple[str, float]:
    """``NAME=FACTOR``, a name of `Pulls`."""
    name, _, factor = text.partition("=")
    try:
        if name in vars(Pulls()) and 0 <= float(factor) < float("inf"):
            return name, float(factor)
    except ValueError:
        pass
    known = ", ".join(vars(Pulls()))
    raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FACTOR with a name of {known}")


def _pulls(pulls: Pulls) -> str:
    return " ".join(f"{name}={factor:g}" for name, factor in vars(pulls).items())
