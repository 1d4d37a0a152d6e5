"""Which files of a folder are images."""

import pytest

from runtime.images.folder import INPUT_SUFFIXES, images_in, scan_folder
from schemas.errors import UsageError


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.touch()


def test_images_are_found_by_extension_sorted_and_not_deeper(tmp_path):
    touch(tmp_path, "b.PNG", "a.webp", "notes.txt", "deep/c.png")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in images_in(tmp_path)] == ["a.webp", "b.PNG"]


def test_every_format_that_is_read_is_found_by_its_names(tmp_path):
    names = {
        *("a.jpg", "b.jpeg", "c.jpe", "d.jfif", "e.png", "f.apng", "g.webp", "h.tif", "i.tiff"),
        *("j.gif", "k.heic", "l.heif", "m.hif", "n.avif", "o.JFIF"),
    }
    touch(tmp_path, *names)
    assert {path.name for path in images_in(tmp_path)} == names
    assert len(INPUT_SUFFIXES) == len(names) - 1


def test_hidden_files_are_no_images(tmp_path):
    touch(tmp_path, "a.jpg", "._a.jpg", ".b.png", ".DS_Store")
    content = scan_folder(tmp_path)
    assert [path.name for path in content.images] == ["a.jpg"]
    assert content.skipped == ()
    assert content.note == ""


def test_what_is_skipped_is_counted_with_its_extensions(tmp_path):
    touch(tmp_path, "a.png", "b.XYZ", "c.bmp", "d.bmp", "README")
    assert scan_folder(tmp_path).note == "4 files skipped (.bmp, .xyz, no extension)"
    touch(tmp_path, "e.ppm", "f.tga")
    assert scan_folder(tmp_path).note == "6 files skipped (.bmp, .ppm, .tga, .xyz, …)"
    only = tmp_path / "only"
    touch(only, "a.png", "a.txt")
    assert scan_folder(only).note == "1 file skipped (.txt)"


def test_links_to_nothing_are_images_that_will_fail(tmp_path):
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.png").symlink_to("folder")
    assert [path.name for path in images_in(tmp_path)] == ["gone.png", "loop.png"]
    assert [p.name for p in scan_folder(tmp_path, recursive=True).images] == [
        "gone.png",
        "loop.png",
    ]


def test_a_folder_without_images_is_refused(tmp_path):
    touch(tmp_path, "notes.txt", "._a.png")
    for path, said in [
        (tmp_path, r"no image in this folder; 1 file skipped \(.txt\)"),
        (tmp_path / "absent", "no such folder"),
        (tmp_path / "notes.txt", "is not a folder"),
    ]:
        with pytest.raises(UsageError, match=said):
            images_in(path)
