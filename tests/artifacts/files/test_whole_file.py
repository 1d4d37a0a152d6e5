"""A file is replaced as a whole, and an error leaves everything as it was."""

import pytest

from artifacts.files.whole_file import replacing, write_bytes, write_text
from schemas.errors import ResourceError


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "a.json"
    for text in ("first\n", "ä\n"):
        write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "first\n")

    def fail():
        with replacing(path) as partial:
            partial.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "first\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "absent" / "a.json"
    with pytest.raises(ResourceError, match=r"a\.json: could not be written \(No such file"):
        write_text(path, "text")


def test_what_a_killed_writer_left_is_written_over_by_the_next(tmp_path):
    path = tmp_path / "a.json"
    (tmp_path / "a.json.partial").write_bytes(b"longer than what follows")
    write_bytes(path, b"whole", sole_writer=True)
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]
