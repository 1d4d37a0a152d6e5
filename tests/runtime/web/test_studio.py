"""What stands behind the page: one picture at a time, kept on disk, found again after a restart."""

import threading

import numpy as np
import pytest
import pyvips

from runtime.web.studio import PREVIEWS, Studio, Wish
from schemas.errors import ImageError, UsageError


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = tmp_path / "a photo.png"
    pyvips.Image.new_from_array(pixels).write_to_file(str(file))
    return file


@pytest.fixture
def loads():
    return []


@pytest.fixture
def make(tmp_path, tiny, loads):
    def load(place, texts):
        loads.append((place.name, texts.positive))
        return tiny

    packs = {"one": tmp_path / "one.qpack", "two": tmp_path / "two.qpack"}
    for name, path in packs.items():  # what tells one from the other
        path.mkdir()
        (path / "manifest.json").write_text(f'{{"checksum": "{name}"}}')
    return lambda: Studio(packs, tmp_path / "out", load, max_pixels=1000)


def test_a_wish_becomes_a_png_with_previews_on_the_way(make, photo):
    seen = []
    result = make().enlarge(photo, Wish("one", steps=8), lambda *step: seen.append(step))
    image = pyvips.Image.new_from_file(str(result))
    assert (image.width, image.height) == (32, 24)
    assert result.name.startswith("a photo-")
    assert [done for done, _, _ in seen] == list(range(1, 9))
    pictures = [picture for _, _, picture in seen if picture is not None]
    assert 1 <= len(pictures) <= PREVIEWS
    assert all(p.dtype == np.uint8 and p.shape[2] == 3 for p in pictures)
    assert seen[-1][2] is None


def test_what_is_finished_outlives_a_restart(make, photo, loads):
    first = make().enlarge(photo, Wish("one", steps=1))
    again = make()
    assert again.finished() == [first]
    assert again.enlarge(photo, Wish("one", steps=1)) == first
    assert loads == [("one.qpack", None)]
    other = again.enlarge(photo, Wish("one", steps=1, seed=1))
    assert other != first
    assert set(again.finished()) == {first, other}


def test_one_model_is_in_memory(make, photo, loads):
    studio = make()
    for wish in (Wish("one", 1), Wish("one", 1, seed=2), Wish("two", 1), Wish("two", 1, " x ")):
        studio.enlarge(photo, wish)
    assert loads == [("one.qpack", None), ("two.qpack", None), ("two.qpack", "x")]


def test_a_killed_picture_leaves_nothing_that_looks_finished(make, photo):
    def stop(done, _total, _picture):
        if done == 2:
            raise KeyboardInterrupt

    studio = make()
    with pytest.raises(KeyboardInterrupt):
        studio.enlarge(photo, Wish("one", steps=3), stop)
    assert studio.finished() == []
    assert studio.enlarge(photo, Wish("one", steps=3)).is_file()


def test_pictures_wait_for_their_turn(make, photo):
    studio, together, most = make(), [], []

    def tell(done, total, _picture):
        if done == 1:
            together.append(1)
        most.append(len(together))
        if done == total:
            together.pop()

    def work(seed):
        studio.enlarge(photo, Wish("one", 3, seed=seed), tell)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(studio.finished()) == 3


def test_bad_wishes(make, photo, tmp_path):
    studio = make()
    with pytest.raises(UsageError, match="no pack 'three'"):
        studio.enlarge(photo, Wish("three"))
    with pytest.raises(UsageError, match="--fidelity"):
        studio.enlarge(photo, Wish("one", fidelity=2.0))
    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(ImageError):
        studio.enlarge(tmp_path / "b.png", Wish("one"))
    large = tmp_path / "large.png"
    pyvips.Image.black(100, 100).write_to_file(str(large))
    with pytest.raises(ImageError, match="pixels"):
        studio.enlarge(large, Wish("one", steps=1))
    assert studio.finished() == []
