"""The command ``qrun``, many times, in forks of one process that has imported torch already.

A fresh process imports for seconds; a fork runs the same `main`, hears the same signals, and can be
killed.
"""

import json
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

_SERVER = "from tests.forked_qrun import serve; serve()"


class ForkedQrun:
    """Runs commands; a context manager, whose process ends with it."""

    def __enter__(self):
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        return self

    def __exit__(self, *_error):
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def start(self, arguments, said):
        """Start ``qrun`` with ``arguments``, its stderr into the file ``said``; its process id."""
        order = json.dumps({"arguments": [*map(str, arguments)], "said": str(said)})
        self._server.stdin.write(f"{order}\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def wait(self):
        """The exit code of what was started, or minus the signal that killed it."""
        return int(self._server.stdout.readline())

    def run(self, arguments, said):
        """Run ``qrun``; its exit code."""
        self.start(arguments, said)
        return self.wait()

    def stop(self, arguments, said, signal, results, folder):
        """Start ``qrun``, send it ``signal`` once ``folder`` has so many results; its exit code."""
        process = self.start(arguments, said)
        while len([*folder.glob("*_x4*")]) < results:
            assert Path(f"/proc/{process}/fd").exists(), Path(said).read_text()
            time.sleep(0.001)
        os.kill(process, signal)
        return self.wait()


def serve():
    """Fork a command for every line on stdin; say its process id, and how it ended."""
    # Not the image library: it has threads, which a fork would not have.
    for module in ("runtime.cli.app", "runtime.load", "runtime.dit4sr.network"):
        import_module(module)
    from runtime.cli.main import main

    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            _become(main, order)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(main, order):
    """Be the command; never returns."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(order["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), 2)
        sys.argv = ["qrun", *order["arguments"]]
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os._exit(code)
