"""Packs that change while they are read, and names that lead elsewhere.

The numbers are the rows of the project's table of faults.
"""

import json
import os
import shutil

import pytest
import torch

from artifacts.pack.reader import open_pack, verify_pack
from schemas.errors import PackError
from tests.artifacts.make_pack import make_pack
from tests.artifacts.tamper import edit_manifest
from tests.faults.pack_setup import LAYER, TENSORS, files
from tests.planner.run_qplan import assert_fails, run_qplan

GRID = "bit_grid.json"

# --- 27: replaced while open


@pytest.mark.parametrize("change", ["rename", "truncate", "overwrite", "remove", "whole pack"])
def test_27_replaced_while_open(pristine, tmp_path, change):
    path = shutil.copytree(pristine, tmp_path / "a.qpack")
    opened = open_pack(path)
    before = opened.layer(LAYER)
    kept = before.codes.clone()
    tensors = path / TENSORS
    if change == "rename":
        shutil.copyfile(tensors, tmp_path / "other")
        (tmp_path / "other").replace(tensors)
    elif change == "truncate":
        os.truncate(tensors, 1000)
    elif change == "overwrite":
        size = tensors.stat().st_size
        with tensors.open("r+b") as file:
            file.write(b"\xff" * size)
        stamp = tensors.stat().st_mtime_ns + 10_000_000  # clocks of file systems tick slowly
        os.utime(tensors, ns=(stamp, stamp))
    elif change == "remove":
        shutil.rmtree(path)
    else:
        make_pack(path, force=True, seed=9)
    for read in (lambda: opened.layer(LAYER), lambda: opened.tensor("proj_out.weight")):
        with pytest.raises(PackError, match=rf"{TENSORS}: (was replaced|cannot be read)"):
            read()
    assert torch.equal(before.codes, kept)  # what was read before is no window into the file
    assert before.decode().isfinite().all()


# --- links are followed, names never leave the directory


@pytest.mark.parametrize("name", [GRID, TENSORS, "vae/config.json", "manifest.json", "vae"])
def test_a_link_to_another_place_is_followed(pack, tmp_path, name):
    outside = tmp_path / "outside"
    (pack / name).rename(outside)
    (pack / name).symlink_to(outside)
    verify_pack(pack)


@pytest.mark.parametrize("name", [GRID, TENSORS, "vae/config.json"])
def test_a_link_to_other_content_is_refused_by_size_or_hash(pack, tmp_path, name):
    outside = tmp_path / "outside"
    outside.write_bytes((pack / name).read_bytes().replace(b"4", b"5", 1))
    (pack / name).unlink()
    (pack / name).symlink_to(outside)
    with pytest.raises(PackError, match=f"{name}: content does not match its SHA-256"):
        verify_pack(pack)


@pytest.mark.parametrize("name", [GRID, "manifest.json", TENSORS, "vae/config.json"])
@pytest.mark.parametrize("target", ["loop", "/dev/zero", "/etc/passwd", "gone", "/"])
def test_odd_links(pack, name, target):
    (pack / name).unlink()
    (pack / name).symlink_to((pack / name).name if target == "loop" else target)
    with pytest.raises(PackError, match=name.replace(".", r"\.")):
        open_pack(pack)


@pytest.mark.parametrize("name", [GRID, "manifest.json", TENSORS, "vae/config.json"])
def test_a_pipe_does_not_block(pack, name):
    (pack / name).unlink()
    os.mkfifo(pack / name)
    with pytest.raises(PackError, match=rf"{name}.* not a regular file"):
        open_pack(pack)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", f"vae/../{GRID}", f"./{GRID}"])
def test_names_in_the_manifest_that_point_out(pack, name):
    edit_manifest(pack, lambda m: m["files"].update({name: m["files"][GRID]}))
    with pytest.raises(PackError, match=r"manifest\.json: files"):
        open_pack(pack)


# --- what lies beside the pack's files


OTHERS = [".DS_Store", "Thumbs.db", ".nfs0000000000000001", "LICENSE", "preview.png", ".hidden"]


@pytest.mark.parametrize("name", [*OTHERS, "vae/.DS_Store", "scheduler/._scheduler_config.json"])
def test_other_files_are_ignored_and_listed_by_verify(pack, name):
    (pack / name).write_bytes(b"\0x")
    open_pack(pack)
    result = run_qplan("verify", pack)
    assert result.exit_code == 0, result.output
    assert f"not part of the pack, and ignored: {name}" in result.stderr
    assert json.loads(run_qplan("verify", pack, "--json").stdout)["ignored"] == [name]


def test_other_folders_pipes_and_dead_links_are_ignored(pack):
    (pack / "more" / "deep").mkdir(parents=True)
    os.mkfifo(pack / "pipe")
    (pack / "dead").symlink_to("gone")
    (pack / os.fsdecode(b"bad\xff\x1b[31m")).write_bytes(b"")
    result = run_qplan("verify", pack)
    assert result.exit_code == 0, result.output
    assert "dead, more/, pipe" in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("change", ["edited", "gone", "a folder"])
def test_the_model_card_is_not_under_the_hash(pack, change):
    card = pack / "README.md"
    card.unlink()
    if change == "edited":
        card.write_text("# My pack\n")
    elif change == "a folder":
        card.mkdir()
    verify_pack(pack)
    assert "README.md" not in open_pack(pack).manifest.files


def test_a_pack_of_an_older_program_that_lists_its_model_card_is_read(pack):
    record = {"bytes": 3, "sha256": "0" * 64}
    edit_manifest(pack, lambda m: m["files"].update({"README.md": record}))
    verify_pack(pack)
    found = json.loads(run_qplan("verify", pack, "--json").stdout)
    assert "README.md" not in found["files"]


# --- the grid


@pytest.mark.parametrize(
    "edit", [lambda text: text.replace(b"[5, 4, 16]", b"[5, 3, 16]", 1), lambda text: text + b" "]
)
def test_an_edited_grid_is_refused_at_once_and_told_how(pack, edit):
    """A changed number is a valid one: nothing but the hash would notice."""
    data = (pack / GRID).read_bytes()
    (pack / GRID).write_bytes(edit(data))
    assert (pack / GRID).read_bytes() != data
    for read in (open_pack, verify_pack):
        with pytest.raises(PackError, match=r"bit_grid\.json: ") as caught:
            read(pack)
        assert "qplan regrid PACK --grid edited.json -o NEW" in caught.value.hint


def test_edited_small_files_are_refused_at_once(pack):
    file = pack / "vae" / "config.json"
    file.write_text(file.read_text().replace("0.18215", "0.28215"))
    with pytest.raises(PackError, match=r"vae/config\.json: content does not match"):
        open_pack(pack)


# --- something else in place of a pack, or of a file in it


def test_no_pack_at_all(tmp_path):
    with pytest.raises(PackError, match="gone: no such pack"):
        open_pack(tmp_path / "gone")
    (tmp_path / "file").write_text("x")
    with pytest.raises(PackError, match="is not a directory"):
        open_pack(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PackError, match=r"empty: there is no manifest\.json"):
        open_pack(tmp_path / "empty")
    with pytest.raises(PackError, match="File name too long"):
        open_pack(tmp_path / ("n" * 300))


@pytest.mark.parametrize("form", ["folder", "flat", "file"])
def test_a_checkpoint_in_place_of_a_pack_says_where_it_goes(tmp_path, form):
    path = tmp_path / "m"
    if form == "folder":
        (path / "transformer").mkdir(parents=True)
    else:
        path.mkdir()
        (path / "model.safetensors").write_bytes(b"x")
        path = path / "model.safetensors" if form == "file" else path
    with pytest.raises(PackError, match="not a pack") as caught:
        open_pack(path)
    assert str(path) in str(caught.value)
    assert caught.value.hint == "a checkpoint goes to `qplan build`, or to `--full-precision`"


def test_a_folder_of_packs_lists_them(pack):
    with pytest.raises(PackError, match=r"not a pack, but a folder of packs: a\.qpack") as caught:
        open_pack(pack.parent)
    assert caught.value.hint == "name one of them"


@pytest.mark.parametrize("name", ["manifest.json", TENSORS])
def test_a_file_of_a_pack_says_which_folder_is_meant(pack, name):
    with pytest.raises(PackError, match="a file of a pack") as caught:
        open_pack(pack / name)
    assert str(pack) in caught.value.hint


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:12ab\nsize 5433628288\n"
PAGE = b"<!DOCTYPE html><html><title>Sign in</title></html>"


@pytest.mark.parametrize(
    ("data", "said", "hint"),
    [(POINTER, "a Git-LFS pointer", "git lfs pull"), (PAGE, "a web page", "download failed")],
)
def test_a_pointer_or_a_page_in_place_of_a_file(pristine, tmp_path, data, said, hint):
    for number, name in enumerate(n for n in files(pristine) if n != "README.md"):
        copy = shutil.copytree(pristine, tmp_path / str(number))
        (copy / name).write_bytes(data)
        with pytest.raises(PackError, match=f"{name}: {said}") as caught:
            open_pack(copy)
        assert hint in caught.value.hint


def test_a_web_address_keeps_its_slashes(tmp_path):
    result = run_qplan("verify", "https://example.org/a.qpack")
    assert_fails(result, 3, "https://example.org/a.qpack: a web address", "download it")
