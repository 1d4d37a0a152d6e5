"""Ctrl-C at any time: exit code 130, one line, and no waiting for a library."""

import signal
import subprocess
import sys
import time

import pytest

from tests.runtime.cli.test_cli import make_image

LONGEST_SECONDS = 20
"""Far above the two seconds that are promised: the machine may be busy."""


def interrupted(code, *, after_seconds=0.0):
    """Run ``code``, interrupt it after its first line of output; its stderr."""
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout.readline() == "ready\n"
        time.sleep(after_seconds)
        child.send_signal(signal.SIGINT)
        try:
            _, errors = child.communicate(timeout=LONGEST_SECONDS)
        finally:
            child.kill()
    assert child.returncode == 130, errors
    return errors


@pytest.mark.parametrize("after_seconds", [0.0, 0.1, 0.4, 1.0, 2.5])
@pytest.mark.parametrize("command", ["qrun", "qplan"])
def test_a_command_that_is_starting(tmp_path, command, after_seconds):
    arguments = {
        "qrun": [
            "upscale",
            str(make_image(tmp_path / "a.png", size=(400, 400))),
            "--full-precision",
        ],
        "qplan": ["build", "--resume", "-o", str(tmp_path / "out.qpack")],
    }[command]
    model = "artifacts/demo/dit4sr-mini"
    # Whatever the moment hits: imports, reading, computing. The last is repeated for ever.
    code = (
        "import sys\n"
        "from artifacts.cli.interrupts import leave_at_once_on_interrupt\n"
        f"from {'runtime' if command == 'qrun' else 'planner'}.cli.main import main\n"
        "leave_at_once_on_interrupt()\n"  # as main does; not to depend on how fast it comes to it
        f"sys.argv = {[command, *arguments, model]!r}\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    inside = False\n"
        "    try:\n"
        "        inside = True\n"
        "        main()\n"
        "    except SystemExit as stop:\n"
        "        inside = False\n"
        "        if stop.code == 130: raise\n"
        "    except KeyboardInterrupt:\n"
        "        if inside: raise\n"
        "        print('interrupted', file=sys.stderr)\n"  # between two commands: nothing to test
        "        sys.exit(130)\n"
    )
    lines = interrupted(code, after_seconds=after_seconds).splitlines()
    told = [line for line in lines if line.startswith("interrupted")]
    assert len(told) == 1
    assert not any("Traceback" in line for line in lines)


SETUP = (
    "from artifacts.cli.interrupts import interruptible, leave_at_once_on_interrupt\n"
    "leave_at_once_on_interrupt(); interruptible()\n"
)


def test_an_interruption_that_a_library_swallows():
    code = (
        SETUP + "import time; print('ready', flush=True)\n"
        "while True:\n"
        "    try: time.sleep(600)\n"
        "    except KeyboardInterrupt: pass\n"
    )
    assert interrupted(code) == "interrupted\n"


def test_a_long_operation_is_not_waited_for():
    code = (
        SETUP + "import torch; torch.set_num_threads(1)\n"
        "x = torch.randn(6000, 6000); print('ready', flush=True)\n"
        "torch.linalg.svd(x)\n"  # about a minute
    )
    assert interrupted(code, after_seconds=0.2) == "interrupted\n"


def test_cleaning_up_comes_first():
    code = (
        SETUP + "import sys, time\nfrom artifacts.cli.exit_codes import exit_on_error\n"
        "print('ready', flush=True)\n"
        "with exit_on_error():\n"
        "    try: time.sleep(600)\n"
        "    except KeyboardInterrupt: raise KeyboardInterrupt('all is kept') from None\n"
    )
    assert interrupted(code, after_seconds=0.2) == "interrupted: all is kept\n"


def test_a_program_that_calls_commands_keeps_its_own_handling():
    before = signal.getsignal(signal.SIGINT)
    from artifacts.cli.exit_codes import exit_on_error

    with exit_on_error():
        assert signal.getsignal(signal.SIGINT) is before
