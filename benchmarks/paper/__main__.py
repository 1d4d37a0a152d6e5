"""Section 4 of Q-DiT4SR on a network at hand: Tables 1 to 4, Figures 2 (right) and 4.

    python -m benchmarks.paper --out docs/results

Rows are those of `benchmarks.quality`, from the same store of finished rows, so what it measured is
not measured again, and an interrupted run goes on. Without --out the page is printed, without
plots.

    python -m benchmarks.paper --limit 1       # the whole way on little: 1 crop, noise, step, row
    python -m benchmarks.paper --tables 2,3    # these alone; 0 for none
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper.tables import tables
from schemas.errors import INTERRUPTED_EXIT_CODE, QPackError

MODEL = Path("artifacts/demo/dit4sr-mini")
CROP_PX = 128
REMOVED = (0.02, 0.1, 0.25, 0.5)
"""Shares of components that Fig. 4 leaves out."""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--model", type=Path, default=MODEL, help="default: %(default)s")
    parser.add_argument("--work", type=Path, default=Path("out/quality"), help="for finished rows")
    parser.add_argument("--out", type=Path, help="folder for the page; printed only without")
    parser.add_argument(
        "--learned",
        type=Path,
        default=Path("docs/results"),
        help="folder of what `benchmarks.learned --out` wrote; default: %(default)s",
    )
    parser.add_argument("--tables", default="1,2,3,4", help="default: %(default)s")
    parser.add_argument("--no-figures", action="store_true")
    parser.add_argument("--crops", type=int, default=16, help="default: %(default)s, at most 34")
    parser.add_argument("--seeds", type=int, default=3, help="noises, default: %(default)s")
    parser.add_argument("--steps", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--no-pictures", action="store_true", help="compare latents alone")
    parser.add_argument("--limit", type=int, help="of crops, noises, steps, rows and MP's layers")
    arguments = parser.parse_args(argv)
    arguments.given = list(sys.argv[1:] if argv is None else argv)
    if arguments.limit is not None:
        for name in ("crops", "seeds", "steps"):
            setattr(arguments, name, min(getattr(arguments, name), arguments.limit))
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print or write; returns the exit code."""
    arguments = parse(argv)
    from benchmarks.paper.run import run  # noqa: PLC0415  (torch; --help goes without)

    wanted = {int(number) for number in arguments.tables.split(",")}
    chosen = [table for table in tables() if table.number in wanted]
    try:
        page = run(arguments, chosen)
    except (QPackError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, QPackError) else 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE
    if arguments.out is None:
        print(page)
    else:
        (arguments.out / "paper.md").write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
