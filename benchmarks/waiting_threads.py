"""What it costs that threads wait for one another awake, on an idle machine and beside other work.

    python -m benchmarks.waiting_threads                   # a build of the demo
    python -m benchmarks.waiting_threads --busy 0,1,2 -- qrun upscale artifacts/demo/photo.png ...

A command (by default the demo's build, into a temporary folder) runs with different numbers of
turns that GNU's OpenMP waits before a thread sleeps (``GOMP_SPINCOUNT``), one after the other in
every round; beside it so many busy processes. Wall and processor seconds, the least of the rounds.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from artifacts.cli.threads import SPINS

LIBRARY_SPINS = "300000"
"""What GNU's OpenMP waits by itself."""
DEMO = (
    *("-m", "planner.cli.main", "build", "artifacts/demo/dit4sr-mini", "--target", "W4A4"),
    *("--recipe", "standard", "--global-rank", "8", "--local-rank", "4", "--force", "--restart"),
)


@contextmanager
def beside_busy_processes(count: int) -> Iterator[None]:
    """So many processes that each keep a core busy."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def seconds(command: Sequence[str], spins: str) -> tuple[float, float]:
    """Wall and processor seconds of a command.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    before, began = os.times(), time.perf_counter()
    subprocess.run(
        command,
        env=os.environ | {"GOMP_SPINCOUNT": spins},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    after = os.times()
    processor = sum(
        getattr(after, of) - getattr(before, of) for of in ("children_user", "children_system")
    )
    return time.perf_counter() - began, processor


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--busy", default="0,1", help="busy processes; default: %(default)s")
    parser.add_argument("--spins", default=f"{LIBRARY_SPINS},{SPINS}", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("command", nargs="*", help="what to run; default: the demo's build")
    arguments = parser.parse_args(argv)
    for busy in map(int, arguments.busy.split(",")):
        taken: dict[str, list[tuple[float, float]]] = {}
        with tempfile.TemporaryDirectory() as work, beside_busy_processes(busy):
            demo = (sys.executable, *DEMO, "-o", str(Path(work, "model.qpack")))
            for _round in range(arguments.rounds):
                for spins in arguments.spins.split(","):
                    one = seconds(arguments.command or demo, spins)
                    taken.setdefault(spins, []).append(one)
        for spins, rounds in taken.items():
            wall, processor = min(rounds)
            print(
                f"beside {busy} busy, {spins} turns: {wall:.1f} s, {processor:.1f} s of processors",
                flush=True,
            )


if __name__ == "__main__":
    main()
