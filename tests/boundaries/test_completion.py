"""Shells complete the commands, and what completes imports nothing heavy."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("room", "typed", "found"),
    [
        ("runtime", "qrun up", ["upscale"]),
        ("runtime", "qrun upscale --for", ["--force", "--format"]),
        ("planner", "qplan re", ["recipes", "regrid", "report"]),
        ("planner", "qplan report --cal", ["--calibration"]),
    ],
)
def test_bash_completes(room, typed, found):
    command = typed.split()[0]
    code = (
        f"import sys; sys.argv = [{command!r}]\n"
        f"from {room}.cli.main import main\n"
        "try:\n    main()\nfinally:\n"
        "    print([m for m in ('torch', 'diffusers', 'pyvips') if m in sys.modules],"
        " file=sys.stderr)\n"
    )
    asked = {
        f"_{command.upper()}_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **asked},
    )
    assert sorted(done.stdout.split()) == found
    assert done.stderr.endswith("[]\n")
