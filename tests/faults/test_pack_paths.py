"""Packs that change while they are read, and names that lead elsewhere.

The numbers are the rows of the project's table of faults.
"""

import os
import shutil

import pytest
import torch

from artifacts.pack.reader import open_pack, verify_pack
from schemas.errors import PackError
from tests.artifacts.make_pack import make_pack
from tests.artifacts.tamper import edit_manifest, reseal
from tests.faults.pack_setup import LAYER, TENSORS

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


# --- names never leave the directory


@pytest.mark.parametrize("name", ["README.md", TENSORS, "vae/config.json", "manifest.json"])
def test_links_that_point_out(pack, tmp_path, name):
    outside = tmp_path / "outside"
    (pack / name).rename(outside)
    (pack / name).symlink_to(outside)
    with pytest.raises(PackError, match=f"{name}: a link that points out") as caught:
        open_pack(pack)
    assert "cp -rL" in caught.value.hint


@pytest.mark.parametrize("target", ["loop", "/dev/zero", "/etc/passwd", "gone", "vae"])
def test_odd_links(pack, target):
    (pack / "README.md").unlink()
    (pack / "README.md").symlink_to("README.md" if target == "loop" else target)
    with pytest.raises(PackError, match=r"README\.md"):
        open_pack(pack)


def test_a_linked_folder(pack, tmp_path):
    (pack / "vae").rename(tmp_path / "vae")
    (pack / "vae").symlink_to(tmp_path / "vae")
    with pytest.raises(PackError, match="vae: a link that points out"):
        open_pack(pack)


def test_a_link_within_the_pack_is_read(pack):
    (pack / "README.md").unlink()
    (pack / "README.md").symlink_to("vae/config.json")
    reseal(pack)
    verify_pack(pack)


def test_a_pipe_does_not_block(pack):
    (pack / "README.md").unlink()
    os.mkfifo(pack / "README.md")
    with pytest.raises(PackError, match=r"README\.md: neither a file"):
        open_pack(pack)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "vae/../README.md", "./README.md"])
def test_names_in_the_manifest_that_point_out(pack, name):
    edit_manifest(pack, lambda m: m["files"].update({name: m["files"]["README.md"]}))
    with pytest.raises(PackError, match=r"manifest\.json: files"):
        open_pack(pack)


def test_no_pack_at_all(tmp_path):
    with pytest.raises(PackError, match="does not exist"):
        open_pack(tmp_path / "gone")
    (tmp_path / "file").write_text("x")
    with pytest.raises(PackError, match="is not a directory"):
        open_pack(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PackError, match=r"empty: there is no manifest\.json"):
        open_pack(tmp_path / "empty")


def test_a_checkpoint_in_place_of_a_pack_says_where_it_goes(tmp_path):
    (tmp_path / "transformer").mkdir()
    with pytest.raises(PackError, match="neither a file nor a directory of a pack") as caught:
        open_pack(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "qplan build" in caught.value.hint
