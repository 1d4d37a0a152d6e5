"""Batches behind URLs, through the command: byte for byte those of this machine."""

import json

import fsspec
import pytest

from runtime.remote.copies import put
from runtime.remote.place import RemotePath, as_place
from schemas.errors import UsageError
from tests.runtime.cli.test_cli import make_image

MEMORY = fsspec.filesystem("memory")


@pytest.fixture(autouse=True)
def _empty_memory():
    MEMORY.store.clear()
    MEMORY.pseudo_dirs[:] = [""]
    yield
    MEMORY.store.clear()


@pytest.fixture
def run(qrun):
    return lambda *arguments: qrun("upscale", *arguments, "--pack", "m.qpack")


@pytest.fixture
def photos(tmp_path):
    """A folder with another in it, a broken picture, a hidden one, and something else."""
    folder = tmp_path / "photos"
    make_image(folder / "a.png", seed=1)
    make_image(folder / "a.jpg", seed=2)
    make_image(folder / "deeper" / "b.webp", seed=3)
    make_image(folder / ".hidden.png", seed=4)
    (folder / "broken.tif").write_bytes(b"<html>")
    (folder / "notes.txt").write_text("none")
    return folder


@pytest.fixture
def expected(photos, tmp_path, run):
    """What a run on this machine makes of them: name -> content."""
    assert run(photos, "-r", "-o", tmp_path / "expected").exit_code == 6
    found = tmp_path / "expected"
    return {
        path.relative_to(found).as_posix(): path.read_bytes()
        for path in found.rglob("*")
        if path.is_file()
    }


def upload(folder, url):
    MEMORY.put(str(folder), url, recursive=True)


def behind(url):
    """Name -> content of what is behind a URL."""
    store, root = fsspec.core.url_to_fs(url)
    return {name[len(root) + 1 :]: store.cat_file(name) for name in store.find(root)}


def test_from_urls_to_urls(photos, run, expected):
    upload(photos, "memory://in")
    result = run("memory://in", "-r", "-o", "memory://out/")
    assert result.exit_code == 6, result.stderr
    assert behind("memory://out") == expected
    assert set(expected) == {"a_png_x4.png", "a_jpg_x4.png", "deeper/b_x4.png"}
    assert "failed: memory:///in/broken.tif: not a readable image (a web page)" in result.stderr
    assert "memory:///in: 1 file skipped (.txt)" in result.stderr


def test_from_a_url_here_and_from_here_to_a_url(photos, tmp_path, run, expected):
    upload(photos, "memory://in")
    assert run("memory://in", "-r", "-o", tmp_path / "here").exit_code == 6
    assert (tmp_path / "here" / "deeper" / "b_x4.png").read_bytes() == expected["deeper/b_x4.png"]
    assert run(photos, "-r", "-o", "memory://there").exit_code == 6
    assert behind("memory://there") == expected


def test_a_file_system_with_folders_by_its_url(photos, tmp_path, run, expected):
    out = tmp_path / "new" / "folder"
    assert run(f"file://{photos}", "-r", "-o", f"file://{out}").exit_code == 6
    assert behind(f"file://{out}") == expected  # nothing else is left there


def test_beside_their_inputs_by_pattern_or_one_by_one(photos, run, expected):
    upload(photos, "memory://in")
    assert run("memory://in/deeper/*.webp", "memory://in/a.jpg").exit_code == 0
    assert MEMORY.cat_file("memory://in/deeper/b_x4.png") == expected["deeper/b_x4.png"]
    assert MEMORY.exists("memory://in/a_x4.png")
    assert run("memory://in/a.jpg", "-o", "memory://x/y.webp").exit_code == 0
    assert MEMORY.exists("memory://x/y.webp")


def test_the_same_command_goes_on(photos, run, expected, loads):
    upload(photos, "memory://in")
    command = ("memory://in", "-r", "-o", "memory://out", "--json")
    assert run(*command).exit_code == 6
    MEMORY.rm_file("memory://out/a_jpg_x4.png")
    loads.clear()
    again = run(*command)
    assert [entry["status"] for entry in json.loads(again.stdout)["files"]] == [
        *("done", "skipped", "failed", "skipped"),
    ]
    assert behind("memory://out") == expected

    assert run(*command, "--seed", "5").exit_code == 2  # made with another seed
    MEMORY.pipe_file("memory://in/a.png", make_image(photos / "a.png", seed=9).read_bytes())
    changed = run(*command)
    assert changed.exit_code == 2
    assert "input" in changed.stderr
    assert run(*command, "--force").exit_code == 6


@pytest.mark.parametrize("suffix", ["webp", "tiff"])
def test_formats_that_say_at_their_end_how_they_were_made(photos, run, suffix):
    upload(photos, "memory://in")
    command = ("memory://in/a.png", "-o", "memory://out", "--format", suffix)
    assert run(*command).exit_code == 0
    assert "skipped:" in run(*command).stderr
    assert run(*command, "--seed", "5").exit_code == 2


def test_what_a_killed_command_left_is_moved_into_place(tmp_path):
    MEMORY.pipe_file("memory://out/.a.png.part", b"half")
    (tmp_path / "a.png").write_bytes(b"whole")
    put(tmp_path / "a.png", RemotePath("memory:///out/a.png"))
    assert behind("memory://out") == {"a.png": b"whole"}


class Store:
    """A file system that notes what it is asked for."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, *arguments))


@pytest.mark.parametrize("protocol", ["s3", "gs", "hf", "az"])
def test_object_stores_get_a_result_at_once(tmp_path, monkeypatch, protocol):
    store = Store()
    monkeypatch.setattr(RemotePath, "store", store)
    put(tmp_path / "a.png", RemotePath(f"{protocol}://bucket/a.png"))
    assert store.calls == [("put_file", str(tmp_path / "a.png"), f"{protocol}://bucket/a.png")]


def test_errors_name_the_url(run, tmp_path, loads):
    for arguments, said in (
        (("memory://nothing/here",), "memory:///nothing/here: no such file or folder"),
        (("xyz://a/b.png",), "xyz://a/b.png: Protocol not known: xyz"),
        (("https://a.org/b.png",), "a web address"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, result.stderr
        assert said in result.stderr
    MEMORY.pipe_file("memory://in/notes.txt", b"")
    assert "no image in this folder; 1 file skipped (.txt)" in run("memory://in").stderr
    MEMORY.pipe_file("memory://in/a.png", b"")
    result = run("memory://in", "--compare", tmp_path / "page.html")
    assert result.exit_code == 2
    assert "--compare" in result.stderr
    result = run("memory://in/a.png", "-o", "memory://out/a.bmp")
    assert result.exit_code == 2
    assert loads == []


def test_a_missing_package_is_named(monkeypatch):
    def missing(_url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(UsageError, match=r"^s3://b/a\.png: Install s3fs to access S3$"):
        as_place("s3://b/a.png")


@pytest.mark.parametrize(
    ("raised", "code"),
    [(PermissionError("denied"), 2), (OSError("reset by peer"), 5), (KeyError("token"), 5)],
)
def test_what_a_server_answers_is_a_typed_error(photos, run, monkeypatch, raised, code):
    upload(photos, "memory://in")

    def put_file(*_arguments, **_options):
        raise raised

    monkeypatch.setattr(type(MEMORY), "put_file", put_file)
    result = run("memory://in/a.png", "-o", "memory://out")
    assert result.exit_code == code, result.stderr
    assert (
        "memory:///out/.a_x4.png.part" in result.stderr or "memory:///out/a_x4.png" in result.stderr
    )


def test_nothing_is_left_in_the_folder_for_temporary_files(photos, run, tmp_path, monkeypatch):
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    upload(photos, "memory://in")
    assert run("memory://in", "-r", "-o", "memory://out").exit_code == 6
    assert list(folder.iterdir()) == []
