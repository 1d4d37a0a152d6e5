"""Two ways to run a command and kill it: a fresh process, and a fork that has torch already."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from tests.fuzz.kills.scenario import Scenario, Workspace

KILLED = -signal.SIGKILL
_POLL_S = 0.0005
_LONGEST_S = 120.0


@dataclass(frozen=True)
class End:
    """How a run ended: exit code, or minus the signal; duration; what it said on stderr."""

    code: int
    seconds: float
    said: str


class Runner(Protocol):
    """A way to run a command."""

    name: str

    def run(self, scenario: Scenario, workspace: Workspace, kill_after_s: float | None) -> End:
        """Run it, and kill it after that time unless it has ended."""


class Fresh:
    """A process of its own, as a shell starts it."""

    name = "fresh process"

    def run(self, scenario: Scenario, workspace: Workspace, kill_after_s: float | None) -> End:
        program = f"from {scenario.program}.cli.main import main; main()"
        started = time.monotonic()
        with _said_file(workspace).open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-c", program, *scenario.arguments(workspace.out)],
                env={**os.environ, **workspace.environment},
                stdout=subprocess.DEVNULL,
                stderr=said,
            )
            try:
                process.wait(_LONGEST_S if kill_after_s is None else kill_after_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return _end(process.returncode, started, workspace)


class Forked:
    """A fork of this process, in which everything heavy is imported."""

    name = "fork"

    def __init__(self) -> None:
        # Not the image library: it has threads, which a fork would not have.
        for module in ("runtime.dit4sr.network", "runtime.load", "planner.build.calibrated_build"):
            import_module(module)

    def run(self, scenario: Scenario, workspace: Workspace, kill_after_s: float | None) -> End:
        main = import_module(f"{scenario.program}.cli.main").main
        started = time.monotonic()
        child = os.fork()
        if not child:
            _become(main, scenario, workspace)
        deadline = started + (_LONGEST_S if kill_after_s is None else kill_after_s)
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                break
            if time.monotonic() >= deadline:
                os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
                break
            time.sleep(_POLL_S)
        return _end(os.waitstatus_to_exitcode(status), started, workspace)


def _become(main: object, scenario: Scenario, workspace: Workspace) -> None:
    """Be the command; never returns."""
    code = 1
    try:
        os.environ.update(workspace.environment)
        tempfile.tempdir = None
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(_said_file(workspace), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), 2)
        sys.argv = [scenario.program, *scenario.arguments(workspace.out)]
        main()  # type: ignore[operator]
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os._exit(code)


def _said_file(workspace: Workspace) -> Path:
    return workspace.path.with_name(f"{workspace.path.name}.stderr")


def _end(code: int, started: float, workspace: Workspace) -> End:
    file = _said_file(workspace)  # not there where the process was killed before anything else
    said = file.read_text(errors="replace") if file.is_file() else ""
    return End(code, time.monotonic() - started, said)
