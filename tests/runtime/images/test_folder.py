"""Which files of a folder are images."""

import pytest

from runtime.images.folder import images_in
from schemas.errors import UsageError


def test_images_are_found_by_extension_sorted_and_not_deeper(tmp_path):
    for name in ("b.PNG", "a.webp", "notes.txt", "deep/c.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in images_in(tmp_path)] == ["a.webp", "b.PNG"]


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    for path, said in [
        (tmp_path, "no image in this folder"),
        (tmp_path / "absent", "no such folder"),
        (tmp_path / "notes.txt", "is not a folder"),
    ]:
        with pytest.raises(UsageError, match=said):
            images_in(path)
