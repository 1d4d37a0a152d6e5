"""The command line: ``python -m tests.fuzz headers|packs|checkpoints|images|... --count N``."""

import argparse
import json
import os
import sys
import time
from functools import partial
from pathlib import Path

# As in the tests: matrices are small, and two threads of one worker would count twice.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.fuzz.campaign import BLOCKED_S, run_campaign, save_failure
from tests.fuzz.tally import Tally
from tests.fuzz.targets import TARGETS, make_target

SLICE = {
    "headers": 9000,
    "packs": 180,
    "checkpoints": 90,
    "images": 600,
    "grids": 70,
    "calibrations": 60,
}
"""Cases of ``slice``: about ten seconds of each kind."""
MOST_SAVED = 50
_PROGRESS_S = 60.0


def main() -> int:
    """Run one campaign, or a slice of all; 1 if a case failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("what", choices=[*TARGETS, "slice", "kills"])
    parser.add_argument("--count", type=int, default=1000, help="cases")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="worker processes")
    parser.add_argument(
        "--blocked-s", type=float, default=BLOCKED_S, help="how long a case may wait for nothing"
    )
    parser.add_argument(
        "--scenarios", nargs="*", choices=["builds", "batches"], help="of kills; all by default"
    )
    parser.add_argument("--save", type=Path, help="folder for the inputs of failed cases")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    options = parser.parse_args()
    if options.what == "kills":
        from tests.fuzz.kills.command import SCENARIOS, run_kills

        chosen = options.scenarios or list(SCENARIOS)
        return run_kills(options.count, options.seed, scenarios=chosen, as_json=options.json)
    counts = SLICE if options.what == "slice" else {options.what: options.count}
    tallies = {what: _run(what, count, options) for what, count in counts.items()}
    if options.json:
        print(json.dumps({what: tally.as_json() for what, tally in tallies.items()}))
    return 1 if any(tally.failures for tally in tallies.values()) else 0


def _run(what: str, count: int, options: argparse.Namespace) -> Tally:
    """One campaign: run, print, save."""
    make = partial(make_target, what)
    make()  # what the target imports, once for all workers
    started = said = time.monotonic()

    def progress(tally: Tally) -> None:
        nonlocal said
        if not options.json and time.monotonic() > said + _PROGRESS_S:
            said = time.monotonic()
            minutes, failed = (said - started) / 60, len(tally.failures)
            print(f"{minutes:.0f} min: {tally.cases:,} cases, {failed} failed", file=sys.stderr)

    tally = run_campaign(
        make,
        options.seed,
        range(options.first, options.first + count),
        jobs=options.jobs,
        blocked_s=options.blocked_s,
        progress=progress,
    )
    if not options.json:
        minutes = (time.monotonic() - started) / 60
        print(tally.render(what, options.seed))
        print(f"  {minutes:.1f} min with {options.jobs} worker(s)", flush=True)
    if options.save:
        for failure in tally.failures[:MOST_SAVED]:
            save_failure(make, options.seed, failure, options.save)
    return tally


if __name__ == "__main__":
    sys.exit(main())
