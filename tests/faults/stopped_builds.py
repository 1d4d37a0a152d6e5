"""Run ``qplan`` several times, each time in a forked process that a signal stops on its way.

    python stopped_builds.py FOLDER SIGKILL@0.4,SIGINT@0.7 ARGUMENT...

The first run is left alone and writes to ``FOLDER/whole.qpack``; its operations on paths in FOLDER
(opening, renaming, making, removing) are counted. Every other run writes to a pack named after it,
and gets its signal when it has done that share of them; @-1 is just before the last but one.
Prints, as JSON, name -> [exit code, or minus the signal; what it said on stderr].

Forking saves importing torch for every run.
"""

import json
import os
import signal
import sys
from pathlib import Path

# What the runs import anyway, once for all.
import runtime.dit4sr.network  # noqa: F401
from planner.cli.main import main
from runtime.sampling.schedule import euler_schedule

OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


def run(name: str, folder: Path, arguments: list[str], stop_at: int | None) -> None:
    """Be ``qplan``; never returns."""
    count = 0

    def watch(event: str, values: tuple[object, ...]) -> None:
        nonlocal count
        if event in OPERATIONS and any(str(value).startswith(str(folder)) for value in values):
            count += 1
            if count == stop_at:
                os.kill(os.getpid(), signal.Signals[name.partition("@")[0]])

    os.dup2(os.open(f"{folder}.stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    # Shells let what they start in the background ignore Ctrl-C, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.addaudithook(watch)
    sys.argv = ["qplan", *arguments, "-o", str(folder / f"{name}.qpack")]
    code = 1
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        Path(f"{folder}.count").write_text(str(count))
        os._exit(code)


def run_forked(
    name: str, folder: Path, arguments: list[str], stop_at: int | None
) -> tuple[int, str]:
    """The exit code of `run`, and what it said."""
    child = os.fork()
    if not child:
        run(name, folder, arguments, stop_at)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), Path(f"{folder}.stderr").read_text()


def run_all(folder: Path, stops: list[str], arguments: list[str]) -> None:
    """One run after the other."""
    euler_schedule(1, 1.0)  # imports the scheduler, and scipy with it: once for all
    found = {"whole": run_forked("whole", folder, arguments, None)}
    count = int(Path(f"{folder}.count").read_text())
    for name in stops:
        share = float(name.partition("@")[2])
        stop_at = round(count * share if share > 0 else count + share)
        found[name] = run_forked(name, folder, arguments, stop_at)
    print(json.dumps(found))


if __name__ == "__main__":
    run_all(Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:])
