import os
import subprocess
import sys

import pytest

from artifacts.files.output_lock import lock_file, output_lock
from schemas.errors import ResourceError


def test_the_second_is_refused_and_told_by_whom(tmp_path):
    output = tmp_path / "a.qpack"
    with output_lock(output):
        holder = f"process {os.getpid()} is writing it"
        with pytest.raises(ResourceError, match=holder) as refused, output_lock(output):
            pytest.fail("the block must not be entered")
        assert str(lock_file(output)) in str(refused.value)
        with output_lock(tmp_path / "b.qpack"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_an_error_lets_go(tmp_path):
    with pytest.raises(RuntimeError), output_lock(tmp_path / "a"):
        raise RuntimeError
    with output_lock(tmp_path / "a"):
        pass


def test_the_lock_dies_with_its_process(tmp_path):
    output = tmp_path / "a.qpack"
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from artifacts.files.output_lock import output_lock\n"
        "with output_lock(Path(sys.argv[1])):\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(ResourceError, match=f"process {process.pid}"), output_lock(output):
            pytest.fail("the block must not be entered")
        process.kill()
        process.wait()
    assert lock_file(output).exists()
    with output_lock(output):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_is_removed_while_it_is_opened_is_opened_again(tmp_path, monkeypatch):
    output, true_open, opened = tmp_path / "a", os.open, []

    def slow_open(path, *rest):
        descriptor = true_open(path, *rest)
        if not opened:
            path.unlink()  # what its holder does before it lets go
        opened.append(descriptor)
        return descriptor

    monkeypatch.setattr(os, "open", slow_open)
    with output_lock(output):
        assert len(opened) == 2
        assert lock_file(output).exists()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ResourceError, match="No such file"), output_lock(tmp_path / "x" / "a"):
        pytest.fail("the block must not be entered")
