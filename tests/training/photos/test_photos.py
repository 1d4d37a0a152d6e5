"""Selection, storage and split of the photos."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.photos import gather as gathering
from training.photos import selection, shipped
from training.photos.debian import Unpacked
from training.photos.gather import LONGEST_SIDE_PX, SHORTEST_SIDE_PX, gather, sharp_size
from training.photos.library import held_out_photos, training_photos
from training.photos.manifest import Entry, read_manifest, write_manifest
from training.photos.selection import HELD_OUT, SOURCES, Source, is_held_out

KEYS = [key for source in SOURCES for key in source.files()]


def test_keys_are_unique_and_every_held_out_photo_is_one_of_them():
    assert len(set(KEYS)) == len(KEYS)
    held_out = {f"{group}/{name}" for group, names in HELD_OUT.items() for name in names.split()}
    assert held_out <= set(KEYS)
    assert {key for key in KEYS if is_held_out(key)} == held_out
    assert len(held_out) + len(shipped.HELD_OUT) >= 30


def test_no_shipped_photo_is_on_both_sides():
    assert set(shipped.held_out_photos()) == set(shipped.HELD_OUT)
    for photo in shipped.training_photos().values():
        assert photo.dtype == np.uint8
        for other in shipped.held_out_photos().values():
            assert photo.shape != other.shape or np.abs(photo.astype(int) - other).mean() > 10


@pytest.mark.parametrize(
    ("size", "file_bytes", "expected"),
    [
        ((1000, 800), 400_000, (1000, 800)),  # 0.5 bytes a pixel: sharp as it is
        ((2000, 1000), 100_000, (1000, 500)),  # 0.05: a quarter of the pixels carries it
        ((1000, 400), 1_000, (800, SHORTEST_SIDE_PX)),
        ((6000, 3000), 9_000_000, (LONGEST_SIDE_PX, LONGEST_SIDE_PX // 2)),
        ((300, 200), 1_000, (300, 200)),  # never enlarged
    ],
)
def test_soft_pictures_are_stored_smaller(size, file_bytes, expected):
    assert sharp_size(size, file_bytes) == expected


def test_the_manifest_is_read_back(tmp_path):
    entry = Entry("a/b", True, "a 1.0", "usr/b.jpg", "CC0-1.0", "Ann", 12, "00ff", (4, 5))
    write_manifest([entry], tmp_path)
    assert read_manifest(tmp_path) == [entry]


def test_gathering_unpacks_splits_and_lists(tmp_path, monkeypatch):
    """A package with two photos, one of which is held out."""
    root = tmp_path / "package"
    (root / "pictures").mkdir(parents=True)
    for index, name in enumerate(("lake", "hill")):
        noise = np.random.default_rng(index).integers(0, 256, (330, 340, 3), np.uint8)
        encoded = io.BytesIO()
        Image.fromarray(noise).save(encoded, "JPEG", quality=95)
        (root / "pictures" / f"{name}.jpg").write_bytes(encoded.getvalue())
    (root / "usr/share/doc/scenes").mkdir(parents=True)
    (root / "usr/share/doc/scenes/copyright").write_text(
        "Files: *\nCopyright: Ann\nLicense: CC0-1.0\n"
    )
    monkeypatch.setattr(gathering, "unpack", lambda name, cache: Unpacked(name, "1.0", root))
    monkeypatch.setattr(gathering, "SOURCES", (Source("scenes", "pictures", "lake hill"),))
    monkeypatch.setattr(gathering, "is_held_out", lambda key: key == "scenes/hill")

    entries = gather(tmp_path / "cache")
    assert [entry.key for entry in entries] == ["scenes/lake", "scenes/hill"]
    assert {entry.licence for entry in entries} == {"CC0-1.0"}
    assert {entry.stored_px for entry in entries} == {(330, 340)}
    held_out = held_out_photos(tmp_path / "cache")
    assert set(held_out) == {"scenes/hill", *shipped.HELD_OUT}
    first = training_photos(tmp_path / "cache")[0]
    assert first.shape == (330, 340, 3)
    assert not np.array_equal(first, held_out["scenes/hill"])


def test_the_committed_manifest_lists_the_selection():
    entries = read_manifest(Path(selection.__file__).parent)
    assert [entry.key for entry in entries] == KEYS
    for entry in entries:
        assert entry.held_out == is_held_out(entry.key)
        assert entry.licence
        assert len(entry.sha256) == 64
        assert "@" not in entry.holder
