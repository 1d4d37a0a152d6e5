"""What a result says of how it was made."""

import json

import numpy as np
import pytest
import pyvips
from PIL import Image

from runtime.images.made_with import read_record, state_of, with_record

RECORD = {"steps": 4, "guidance": 1.5, "prompt": 'a "cät"\n\U0001f431', "model": "pack 0123"}


@pytest.fixture
def picture():
    return pyvips.Image.black(4, 3, bands=3).copy(interpretation="srgb")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"])
def test_the_record_comes_back(tmp_path, picture, suffix):
    file = tmp_path / f"a{suffix}"
    with_record(picture, suffix, RECORD).write_to_file(str(file))
    assert read_record(file) == RECORD
    assert state_of(file, RECORD) == ("finished", "")
    assert state_of(file, {**RECORD, "steps": 5}) == ("different", "steps 4 (now 5)")
    longer = {**RECORD, "prompt": "x" * 100}
    assert state_of(file, longer) == ("different", "prompt")
    more = {**RECORD, "variant": "r1"}
    assert state_of(file, more) == ("different", "variant unset (now r1)")


def test_other_programs_can_read_it(tmp_path, picture):
    file = tmp_path / "a.png"
    with_record(picture, ".png", RECORD).write_to_file(str(file))
    assert json.loads(Image.open(file).text["qdit4sr"])["qdit4sr"] == RECORD


def test_pixels_stay(tmp_path, picture):
    with_record(picture, ".png", RECORD).write_to_file(str(tmp_path / "a.png"))
    assert not np.asarray(Image.open(tmp_path / "a.png")).any()


def test_what_says_nothing(tmp_path, picture):
    file = tmp_path / "a.png"
    assert state_of(file, RECORD) == ("absent", "")
    picture.write_to_file(str(file))
    assert state_of(file, RECORD) == ("unknown", "")
    for text in ("hello", "[]", '{"other": 1}', '{"qdit4sr": 3}', "[" * 100_000):
        marked = picture.copy()
        marked.set_type(pyvips.GValue.gstr_type, "png-comment-0-qdit4sr", text)
        marked.write_to_file(str(file))
        assert state_of(file, RECORD) == ("unknown", "")
    for content in (b"", b"\x89PNG\r\n\x1a\n", b"finished earlier", b"2 2\n1 2\n3 4\n"):
        file.write_bytes(content)
        assert state_of(file, RECORD) == ("unreadable", "")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_a_picture_without_its_end_is_not_finished(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (90, 80, 3), dtype=np.uint8)
    picture = pyvips.Image.new_from_array(noise).copy(interpretation="srgb")
    file = tmp_path / f"a{suffix}"
    with_record(picture, suffix, RECORD).write_to_file(str(file))
    assert state_of(file, RECORD) == ("finished", "")
    content = file.read_bytes()
    for missing in (len(content) // 2, *([20] if suffix != ".tif" else [])):
        file.write_bytes(content[:-missing])
        assert state_of(file, RECORD) == ("unreadable", "")
