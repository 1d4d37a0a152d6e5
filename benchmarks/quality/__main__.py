"""Compare quantization recipes on the bundled model.

    python -m benchmarks.quality --out docs/results

Every row is one recipe at one target: a pack is built, sampled on held-out crops from the noises
that the unquantized network was sampled from, and thrown away; its numbers stay in the work folder.
An interrupted run goes on with the first row that is not there. Runs of different targets may share
a work folder at the same time; a last run without --targets then only puts the results together.
Without --out they are printed and not written.

    python -m benchmarks.quality --list
    python -m benchmarks.quality --quick
    python -m benchmarks.quality --rows '^W4A4/(quarot|q-dit4sr)$' --crops 6 --seeds 1
    python -m benchmarks.quality --out docs/results --layers '^W4A4/[^@]*$'
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.quality.parts import part_rows
from benchmarks.quality.rows import MAIN_TARGETS, plan
from runtime.bench.workload import Ranks
from schemas.errors import INTERRUPTED_EXIT_CODE, QPackError

MODEL = Path("artifacts/demo/dit4sr-mini")
QUICK_ROWS = r"^W4A4/(rtn|quarot)$"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--work", type=Path, default=Path("out/quality"), help="for finished rows")
    parser.add_argument("--out", type=Path, help="folder for the results; printed only without")
    parser.add_argument("--targets", default=",".join(MAIN_TARGETS), help="default: %(default)s")
    parser.add_argument("--rows", default="", metavar="REGEX", help="only rows that it finds")
    parser.add_argument("--crops", type=int, default=16, help="default: %(default)s, at most 34")
    parser.add_argument(
        "--seeds", type=int, default=3, help="noises per crop, default: %(default)s"
    )
    parser.add_argument(
        "--draws",
        type=int,
        default=1,
        help="builds of every recipe, each with random signs of its own, default: %(default)s",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--guidance", type=float, default=1.0, help="default: %(default)s")
    parser.add_argument("--ranks", type=_ranks, default=Ranks(4, 2), help="default: 4+2")
    parser.add_argument("--second-ranks", type=_ranks, default=Ranks(32, 8), help="default: 32+8")
    parser.add_argument(
        "--no-peers", action="store_true", help="leave outside peers and their targets out"
    )
    parser.add_argument(
        "--diagnose", action="store_true", help="add W4A16 and W8A4: one error at a time"
    )
    parser.add_argument(
        "--parts", action="store_true", help="add every part of standard, alone and missing"
    )
    parser.add_argument("--sweep", action="store_true", help="add W2A16 to W8A16")
    parser.add_argument("--no-pictures", action="store_true", help="compare latents alone")
    parser.add_argument(
        "--layers", metavar="REGEX", help="also compare the layers of the rows that it finds"
    )
    parser.add_argument("--quick", action="store_true", help="two rows, one crop, two steps")
    parser.add_argument("--report", action="store_true", help="measure nothing; show what is there")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--threads", type=int, help="of torch")
    arguments = parser.parse_args(argv)
    arguments.given = list(sys.argv[1:] if argv is None else argv)
    if arguments.quick:
        arguments.crops, arguments.seeds, arguments.steps = 1, 1, 2
        arguments.targets, arguments.no_pictures = "W4A4", True
        arguments.rows = arguments.rows or QUICK_ROWS
    return arguments


def _ranks(text: str) -> Ranks:
    found = re.fullmatch(r"(\d+)\+(\d+)", text)
    if found is None:
        raise argparse.ArgumentTypeError("write global and local rank as in 4+2")
    return Ranks(int(found[1]), int(found[2]))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; returns the exit code."""
    arguments = parse(argv)
    everything = plan(
        arguments.targets.split(","),
        arguments.ranks,
        arguments.second_ranks,
        peers=not arguments.no_peers,
        diagnose=arguments.diagnose,
        sweep=arguments.sweep,
    )
    if arguments.parts:
        everything += part_rows(arguments.targets.split(",")[0], arguments.ranks)
    rows = [row for row in everything if re.search(arguments.rows, row.full_name)]
    if arguments.list:
        print("\n".join(row.full_name for row in rows))
        return 0
    from benchmarks.quality.run import run  # noqa: PLC0415  (torch; --help and --list go without)

    try:
        run(arguments, rows, everything)
    except (QPackError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, QPackError) else 2
    except KeyboardInterrupt:
        print(
            "interrupted; the same command goes on with the first unfinished row", file=sys.stderr
        )
        return INTERRUPTED_EXIT_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main())
