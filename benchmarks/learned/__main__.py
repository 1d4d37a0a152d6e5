r"""What learning wins: networks before and after they learn, on held-out crops.

    python -m benchmarks.learned --targets W4A4,W2A2 --methods svdquant,qartsr --out docs/results
    python -m benchmarks.learned --model artifacts/demo/dit4sr-mini --steps 8 --ranks 4+2 \
        --budget 96 --batch 2 --targets W4A4,W4A6 --methods all --out docs/results

Every row is a network: of a recipe's pack, or of what a method of `qplan learn` makes of it, from
a pack where one can hold it, else simulated. Compared is the final latent with the unquantized
network's, from the same noises. Finished rows stay in the work folder; the same command goes on.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.learned.report import file_name, table, to_json
from benchmarks.learned.rows import LearnedRows
from planner.calibrate.settings import IMAGES
from planner.learned.plan import LearningPlan
from planner.learned.recipes import LEARNED_RECIPES
from planner.recipes import RECIPES
from schemas.errors import INTERRUPTED_EXIT_CODE, QPackError

MODEL = Path("benchmarks/networks/dit4sr-mini-onestep")
COMPARED = (
    *("rtn", "quarot", "svdquant", "q-diffusion", "efficientdm", "ptq4dit", "q-dit"),
    *("passionsr", "flatquant", "quest", "q-dit4sr", "standard"),
)
"""``--methods all``: those of Q-DiT4SR's Table 1 and ours."""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learned",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--work", type=Path, default=Path("out/learned"), help="for finished rows")
    parser.add_argument("--out", type=Path, help="folder for the results")
    parser.add_argument("--targets", default="W4A4,W2A2", help="default: %(default)s")
    parser.add_argument(
        "--methods",
        default="svdquant,qartsr",
        help="recipes, and methods of `qplan learn`, or `all` that are compared;"
        " default: %(default)s",
    )
    parser.add_argument("--seeds", type=int, default=1, help="of learning; default: %(default)s")
    parser.add_argument("--crops", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=1, help="of the sampler; default: %(default)s")
    parser.add_argument("--ranks", default="8+4", help="global and local; default: %(default)s")
    parser.add_argument("--block-steps", type=int, default=LearningPlan.block_steps)
    parser.add_argument("--whole-steps", type=int, default=LearningPlan.whole_steps)
    parser.add_argument(
        "--budget", type=int, help="steps in which every layer learns, instead of these two"
    )
    parser.add_argument(
        "--pictures", type=int, default=IMAGES, help="to learn from; default: %(default)s"
    )
    parser.add_argument("--batch", type=int, default=LearningPlan.batch, help="pictures per step")
    parser.add_argument(
        "--finished", action="store_true", help="show what is measured, and measure nothing"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="of torch")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; returns the exit code."""
    arguments = parse(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    methods = COMPARED if arguments.methods == "all" else arguments.methods.split(",")
    unknown = [m for m in methods if m not in RECIPES and m not in LEARNED_RECIPES]
    if unknown:
        print(f"error: there is no method {unknown[0]!r}", file=sys.stderr)
        return 2
    try:
        rows = LearnedRows(arguments)
        measured = [
            rows.row(target, method, seed)
            for target in arguments.targets.split(",")
            for method in methods
            for seed in range(arguments.seeds if method in LEARNED_RECIPES else 1)
        ]
    except (QPackError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, QPackError) else 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE
    contents = [content for content in measured if content is not None]
    print("\n".join(table(contents)))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        text = to_json(contents, rows.bench.sampling.key_parts())
        (arguments.out / file_name(arguments.model)).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
