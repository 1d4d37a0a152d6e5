"""Captions of single images, from text files beside them."""

from pathlib import Path

import pytest

from runtime.prompts.captions import MAX_BYTES, read_captions
from schemas.errors import UsageError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cat.txt").write_text("a cat,\r\n  asleep\n", encoding="utf-8-sig")
    (tmp_path / "empty.txt").write_text("")
    return tmp_path


def test_an_image_is_described_by_the_file_of_its_name(folder):
    images = [Path("in/cat.png"), Path("other/cat.jpg"), Path("dog.png"), Path("empty.png")]
    assert read_captions(folder, images) == {
        images[0]: "a cat, asleep",
        images[1]: "a cat, asleep",
        images[3]: "",
    }


def test_a_folder_that_cannot_be_meant(folder):
    with pytest.raises(UsageError, match="no caption for any of the 1 images") as error:
        read_captions(folder, [Path("dog.png")])
    assert error.value.hint == "that of dog.png would be dog.txt"
    with pytest.raises(UsageError, match="no such folder"):
        read_captions(folder / "cat.txt", [Path("cat.png")])


@pytest.mark.parametrize(
    ("content", "said"), [(b"\xff\xfe\x00", "not UTF-8"), (b"a" * (MAX_BYTES + 1), "too long")]
)
def test_what_is_no_caption(folder, content, said):
    (folder / "cat.txt").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_captions(folder, [Path("cat.png")])
