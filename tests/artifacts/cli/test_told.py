"""A stderr that takes nothing, and a stdout that was closed: commands go on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")
TELL = "from artifacts.cli.output import tell; tell('a' * 9); tell('b')"
TERMINAL = (
    "from artifacts.cli.terminal import Terminal\n"
    "t = Terminal(stderr=True); t.print('a'); t.print('b')"
)
ERROR = (
    "from artifacts.cli.exit_codes import exit_on_error; from schemas.errors import PackError\n"
    "with exit_on_error(): raise PackError('damaged')"
)


def outcome(code, **streams):
    return subprocess.run([sys.executable, "-c", code], text=True, check=False, **streams)


@pytest.mark.parametrize("code", [TELL, TERMINAL], ids=["tell", "terminal"])
def test_the_work_goes_on_where_nobody_can_be_told(code):
    reader, writer = os.pipe()
    os.close(reader)
    with FULL.open("w") as full, os.fdopen(writer, "w") as broken:
        for stderr in (full, broken):
            found = outcome(f"{code}\nprint('went on')", stdout=subprocess.PIPE, stderr=stderr)
            assert (found.returncode, found.stdout) == (0, "went on\n")


def test_an_error_keeps_its_exit_code_there():
    with FULL.open("w") as full:
        assert outcome(ERROR, stderr=full).returncode == 3


def test_a_closed_stdout():
    code = "from artifacts.cli.output import terminal; terminal().print('a')"
    command = [sys.executable, "-c", code]
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    assert subprocess.run(shell, check=False).returncode == 0
