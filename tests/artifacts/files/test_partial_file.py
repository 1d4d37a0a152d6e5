"""Files on their way: swept after a kill, kept while somebody writes them."""

import os
import subprocess
import sys
import threading

import pytest

from artifacts.files.partial_file import partial_file, sweep_partial_files
from artifacts.files.whole_file import replacing, write_bytes

WRITER = """
import sys, time
from pathlib import Path
from artifacts.files.whole_file import replacing
with replacing(Path(sys.argv[1])) as partial:
    partial.write_bytes(b"half")
    print("written", flush=True)
    time.sleep(60)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_left_is_swept_and_what_is_written_is_kept(tmp_path):
    path = tmp_path / "a.png"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "written\n"
        (partial,) = names(tmp_path)
        sweep_partial_files(tmp_path)
        write_bytes(tmp_path / "b.png", b"of another process")
        assert names(tmp_path) == [partial, "b.png"]
        process.kill()
        process.wait()
    assert names(tmp_path) == [partial, "b.png"]
    sweep_partial_files(tmp_path)
    assert names(tmp_path) == ["b.png"]


def test_the_next_file_written_sweeps_as_well(tmp_path):
    (tmp_path / ".qrun-99-0.part").write_bytes(b"half")
    write_bytes(tmp_path / "a.png", b"whole")
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("name", [".qrun-a.part", "qrun-1-1.part", ".qrun-1-1.part.png", "a.part"])
def test_other_files_are_left_alone(tmp_path, name):
    (tmp_path / name).write_bytes(b"the user's")
    (tmp_path / ".qrun-1-1.part").symlink_to(tmp_path / name)
    sweep_partial_files(tmp_path)
    assert (tmp_path / name).read_bytes() == b"the user's"
    sweep_partial_files(tmp_path / "absent")


def test_threads_do_not_get_in_each_others_way(tmp_path):
    together = threading.Barrier(4)

    def write(name):
        with replacing(tmp_path / name) as partial:
            partial.write_text(name)
            together.wait()

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: (tmp_path / name).read_text() for name in names(tmp_path)} == {
        name: name for name in "abcd"
    }


def test_a_file_swept_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    true_open, opened = os.open, []

    def swept(path, *rest):
        descriptor = true_open(path, *rest)
        if not opened:
            path.unlink()
        opened.append(path)
        return descriptor

    monkeypatch.setattr(os, "open", swept)
    with partial_file(tmp_path) as partial:
        assert len(opened) == 2
        assert names(tmp_path) == [partial.name]
    assert names(tmp_path) == []


@pytest.mark.parametrize("sole_writer", [False, True])
def test_a_file_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch, sole_writer):
    path = tmp_path / "a.png"
    seen = []
    true_sync = os.fsync

    def sync(descriptor):
        seen.append((os.fstat(descriptor).st_size, path.exists()))
        true_sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    write_bytes(path, b"whole", sole_writer=sole_writer)
    assert seen == [(5, False)]
