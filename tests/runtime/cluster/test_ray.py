"""The real command on a Ray cluster of this machine: the files of a local run."""

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.artifacts.make_pack import TINY, make_pack
from tests.end_to_end.test_hundred_files import FAST, content
from tests.hundred_files import write_hundred_files

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra `cluster`"),
]
LONGEST_SECONDS = 300


def started(folder, out, *options):
    code = "from runtime.cli.main import main; main()"
    arguments = ["upscale", folder / "photos", "--pack", folder / "tiny.qpack", "-o", out]
    with (folder / "said").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments), *options],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            cwd=Path(__file__).parents[3],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def ended(process):
    stdout, _ = process.communicate(timeout=LONGEST_SECONDS)
    return process.returncode, stdout


def on_ray(folder, out):
    return started(folder, out, "--engine", "ray", "--worker-cores", "1")


def wait_for(out, results):
    deadline = time.monotonic() + LONGEST_SECONDS
    while len([*out.glob("*_x4*")]) < results:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("ray")
    write_hundred_files(found / "photos")
    config = TINY.model_copy(update={"num_layers": 1})
    make_pack(found / "tiny.qpack", config=config, changes={"sampling": FAST})
    assert ended(started(found, found / "whole"))[0] == 6
    return found


def descendants(process):
    """Ids of the processes that ``process`` and its children started."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int(
                (entry / "stat").read_text().rpartition(")")[2].split()[1]
            )
        except OSError:  # it has just ended
            continue
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process}


def workers_of(process):
    """Ids of Ray's processes with a model."""
    found = []
    for child in descendants(process):
        try:
            title = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::MapWorker"):
            found.append(child)
    return found


def test_a_killed_worker_loses_nothing(folder):
    out = folder / "killed"
    process = on_ray(folder, out)
    wait_for(out, 10)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    code, stdout = ended(process)
    assert (code, stdout) == (6, ""), (folder / "said").read_text()
    assert content(out) == content(folder / "whole")
    said = (folder / "said").read_text()
    assert sum(line.startswith("failed:") for line in said.splitlines()) == 10
    assert "Traceback" not in said


def test_interrupted_five_times_and_continued_to_the_same_bytes(folder):
    out = folder / "interrupted"
    rng = random.Random(0)
    for number, moment in enumerate(sorted(rng.sample(range(1, 80), 5))):
        process = on_ray(folder, out)
        wait_for(out, moment)
        sent = signal.SIGINT if number % 2 else signal.SIGKILL
        process.send_signal(sent)
        assert ended(process)[0] == (130 if sent == signal.SIGINT else -signal.SIGKILL)
    assert ended(on_ray(folder, out))[0] == 6
    assert content(out) == content(folder / "whole")


def test_one_bad_image_alone(folder):
    bad = folder / "alone"
    (bad / "photos").mkdir(parents=True)
    (bad / "photos" / "empty.png").touch()
    (bad / "tiny.qpack").symlink_to(folder / "tiny.qpack")
    assert ended(on_ray(bad, bad / "out"))[0] == 4
    assert "error: " in (bad / "said").read_text()
    assert "the file is empty" in (bad / "said").read_text()
