import errno
import os
import resource
from pathlib import Path

import pytest
import torch

from artifacts.codec.hadamard import Rotation
from artifacts.pack.reader import open_pack, verify_pack
from artifacts.pack.writer import PackWriter, remove_stale_partials
from schemas.errors import PackError, ResourceError, UsageError
from schemas.json_io import dump_json
from tests.artifacts.make_pack import TIMESTEPS, TINY, make_pack, random_weight


def content(pack: Path) -> dict[str, bytes]:
    files = (path for path in pack.rglob("*") if path.is_file())
    return {path.relative_to(pack).as_posix(): path.read_bytes() for path in files}


def names_beside(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


def rewrite(source: Path, target: Path, *, backwards: bool) -> None:
    """Read all of a pack and write it anew."""
    pack = open_pack(source)
    order = -1 if backwards else 1
    with PackWriter(target) as writer:
        for name in pack.layer_names[::order]:
            writer.add_layer(pack.layer(name))
        for name in pack.tensor_names[::order]:
            writer.add_tensor(name, pack.tensor(name))
        writer.add_prompts(pack.prompts())
        for folder in (pack.vae_dir, pack.scheduler_dir):
            for path in folder.iterdir():
                writer.add_file(f"{folder.name}/{path.name}", path)
        writer.finish(pack.manifest, pack.bit_grid, (source / "README.md").read_text())


@pytest.mark.parametrize("backwards", [False, True])
def test_write_read_write_is_byte_identical_in_any_order(tmp_path, backwards):
    make_pack(tmp_path / "a.qpack")
    rewrite(tmp_path / "a.qpack", tmp_path / "b.qpack", backwards=backwards)
    assert content(tmp_path / "b.qpack") == content(tmp_path / "a.qpack")


def test_the_manifest_returned_is_the_one_written(tmp_path):
    manifest = make_pack(tmp_path / "a.qpack")
    assert dump_json(manifest) == (tmp_path / "a.qpack" / "manifest.json").read_bytes()
    size = (tmp_path / "a.qpack" / "transformer.safetensors").stat().st_size
    assert manifest.transformer_bytes.pack == size
    assert manifest.transformer_bytes.source == 1000
    assert set(manifest.files) == set(content(tmp_path / "a.qpack")) - {
        "manifest.json",
        "README.md",
    }


def test_nothing_in_a_pack_says_when_or_where(tmp_path):
    make_pack(tmp_path / "a.qpack")
    for name, data in content(tmp_path / "a.qpack").items():
        assert str(tmp_path).encode() not in data, name
        assert os.uname().nodename.encode() not in data or len(os.uname().nodename) < 5, name


def test_shards_hold_the_same_tensors(tmp_path):
    make_pack(tmp_path / "one.qpack")
    make_pack(tmp_path / "many.qpack", shard_bytes=20_000)
    shards = sorted((tmp_path / "many.qpack").glob("transformer-*.safetensors"))
    assert len(shards) > 3
    assert shards[0].name == f"transformer-00001-of-{len(shards):05d}.safetensors"
    assert (tmp_path / "many.qpack" / "transformer.safetensors.index.json").is_file()
    one, many = open_pack(tmp_path / "one.qpack"), open_pack(tmp_path / "many.qpack")
    assert many.tensor_names == one.tensor_names
    for name in one.tensor_names:
        assert torch.equal(one.tensor(name), many.tensor(name))
    for name in one.layer_names:
        assert torch.equal(one.layer(name).decode(), many.layer(name).decode())


def test_a_new_pack_is_as_readable_as_a_new_directory(tmp_path):
    make_pack(tmp_path / "a.qpack")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "a.qpack").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_existing_output_is_refused_before_any_work(tmp_path):
    path = tmp_path / "a.qpack"
    make_pack(path)
    before = content(path)
    with pytest.raises(UsageError, match=r"a\.qpack exists") as caught, PackWriter(path):
        pytest.fail("the block must not be entered")
    assert "--force" in caught.value.hint
    assert content(path) == before
    assert names_beside(path) == ["a.qpack"]


def test_force_replaces_the_whole_pack(tmp_path):
    path = tmp_path / "a.qpack"
    make_pack(path)
    make_pack(path, force=True, companions=False, seed=5)
    make_pack(tmp_path / "fresh.qpack", companions=False, seed=5)
    assert content(path) == content(tmp_path / "fresh.qpack")
    assert names_beside(path) == ["a.qpack", "fresh.qpack"]


def test_a_pack_is_no_place_for_another(tmp_path):
    make_pack(tmp_path / "a.qpack")
    with (
        pytest.raises(UsageError, match=r"inside of the pack .*a\.qpack"),
        PackWriter(tmp_path / "a.qpack" / "b.qpack", force=True),
    ):
        pytest.fail("the block must not be entered")
    assert names_beside(tmp_path / "a.qpack") == ["a.qpack"]


@pytest.mark.parametrize("kind", ["photos", "file", "link"])
def test_force_never_removes_what_is_not_a_pack(tmp_path, kind):
    path = tmp_path / "a.qpack"
    if kind == "photos":
        path.mkdir()
        (path / "holiday.jpg").write_bytes(b"x")
    elif kind == "file":
        path.write_bytes(b"x")
    else:
        make_pack(tmp_path / "real.qpack")
        path.symlink_to("real.qpack")
    with (
        pytest.raises(UsageError, match="is a link" if kind == "link" else "not a pack"),
        PackWriter(path, force=True),
    ):
        pytest.fail("the block must not be entered")
    assert path.exists()


@pytest.mark.parametrize("name", ["LICENSE", "preview.png", "vae/notes.txt", ".git/HEAD", "more/x"])
def test_force_never_removes_what_people_put_beside_a_pack(tmp_path, name):
    path = tmp_path / "a.qpack"
    make_pack(path)
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_bytes(b"mine")
    with (
        pytest.raises(UsageError, match=f"not the pack's.*{name.split('/')[0]}") as caught,
        PackWriter(path, force=True),
    ):
        pytest.fail("the block must not be entered")
    assert "move them away" in caught.value.hint
    assert (path / name).read_bytes() == b"mine"


def test_what_nobody_misses_goes_with_a_replaced_pack(tmp_path):
    path = tmp_path / "a.qpack"
    make_pack(path)
    for name in (".DS_Store", "Thumbs.db", "._manifest.json", ".nfs0001", ".gitattributes"):
        (path / name).write_bytes(b"x")
    (path / "README.md").write_text("edited")
    make_pack(path, force=True, seed=1)
    assert not (path / ".DS_Store").exists()


@pytest.mark.parametrize(("parent", "said"), [("gone", "does not exist"), ("file", "is not a fol")])
def test_a_missing_parent_is_a_usage_error(tmp_path, parent, said):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match=f"{parent} {said}"),
        PackWriter(tmp_path / parent / "a.qpack"),
    ):
        pytest.fail("the block must not be entered")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("older", [False, True])
def test_an_interrupted_writer_leaves_no_trace(tmp_path, error, older):
    path = tmp_path / "a.qpack"
    if older:
        make_pack(path)
    before = content(path)

    def interrupted():
        with PackWriter(path, force=older) as writer:
            writer.add_layer(random_weight("l", 8, 24))
            assert len(names_beside(path)) == 1 + older
            raise error

    with pytest.raises(error):
        interrupted()
    assert names_beside(path) == (["a.qpack"] if older else [])
    assert content(path) == before


def test_a_block_that_never_finishes_leaves_no_trace(tmp_path):
    with PackWriter(tmp_path / "a.qpack") as writer:
        writer.add_layer(random_weight("l", 8, 24))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="not open"):
        writer.add_tensor("t", torch.zeros(1))


def test_a_pack_that_contradicts_itself_is_never_put_in_place(tmp_path):
    path = tmp_path / "a.qpack"
    make_pack(path)
    before = content(path)
    with pytest.raises(PackError, match="differ"):
        make_pack(path, force=True, changes={"omitted": ()})
    assert content(path) == before
    assert names_beside(path) == ["a.qpack"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failing_sync_is_a_resource_error_and_the_old_pack_stays(tmp_path, monkeypatch, code):
    path = tmp_path / "a.qpack"
    make_pack(path)
    before = content(path)

    def failing(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(ResourceError, match=os.strerror(code)):
        make_pack(path, force=True, seed=1)
    assert content(path) == before
    assert names_beside(path) == ["a.qpack"]


@pytest.mark.parametrize("limit_bytes", [100, 2000, 100_000])
def test_a_write_the_system_refuses_is_a_resource_error(tmp_path, limit_bytes):
    # The limit on file size makes real writes fail part-way, as a full disk does.
    old_limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, old_limits[1]))
    try:
        with pytest.raises(ResourceError, match="cannot be written"):
            make_pack(tmp_path / "a.qpack")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limits)
    assert list(tmp_path.iterdir()) == []


def test_what_is_added_is_checked_by_name(tmp_path):
    layer = random_weight("l", 8, 24)
    with PackWriter(tmp_path / "a.qpack") as writer:
        writer.add_layer(layer)
        with pytest.raises(ValueError, match=r"l\.codes: added twice"):
            writer.add_layer(layer)
        with pytest.raises(ValueError, match="m: another rotation than that of size 24"):
            writer.add_layer(random_weight("m", 8, 24, signs=False))
        layer = random_weight("n", 8, 24)
        layer.scale[3] = -1
        with pytest.raises(ValueError, match=r"n\.scale has a negative value"):
            writer.add_layer(layer)
        layer = random_weight("p", 8, 24, smoothing=True)
        layer.smoothing[3] = 0
        with pytest.raises(ValueError, match=r"p\.smoothing has a value that is not positive"):
            writer.add_layer(layer)
        layer = random_weight("o", 8, 24)
        layer.bias[3] = torch.nan
        with pytest.raises(ValueError, match=r"o\.bias has a value that is not finite"):
            writer.add_layer(layer)
        with pytest.raises(ValueError, match="t has a value that is not finite"):
            writer.add_tensor("t", torch.tensor([3.4e38]))  # infinite once in bfloat16
        with pytest.raises(ValueError, match=r"\.\./evil: not one of"):
            writer.add_file("../evil", b"")


def test_rotation_sizes_are_those_of_the_layers(tmp_path):
    with PackWriter(tmp_path / "a.qpack") as writer:
        for name, size in (("l", 24), ("m", 112), ("n", 18)):
            writer.add_layer(random_weight(name, 8, size, block=None))
        recorded = writer.rotation_sizes
    assert list(recorded) == ["24", "112"]
    for key, size in recorded.items():
        rotation = Rotation.for_size(int(key))
        assert (size.construction, size.block_size) == (rotation.construction, rotation.block_size)


def test_stale_directories_are_removed_on_request_and_others_are_not(tmp_path):
    for name in (".a.qpack.partial-x1", ".b.qpack.partial-x1", "a.qpack"):
        (tmp_path / name).mkdir()
    remove_stale_partials(tmp_path / "a.qpack")
    assert names_beside(tmp_path / "a.qpack") == [".b.qpack.partial-x1", "a.qpack"]


def test_memory_holds_parts_on_disk_not_tensors(tmp_path):
    with PackWriter(tmp_path / "a.qpack") as writer:
        writer.add_tensor("t", torch.ones(1000))
        parts = [p for p in tmp_path.rglob("*") if p.is_file()]
        assert [part.stat().st_size for part in parts] == [2000]


def test_sixteen_bit_layers_are_stored_plainly(tmp_path):
    name = "transformer_blocks.0.ff.net.2"
    make_pack(tmp_path / "a.qpack", unquantized=(name,))
    pack = open_pack(tmp_path / "a.qpack")
    assert name not in pack.layer_names
    assert pack.tensor(f"{name}.weight").shape == (TINY.hidden_size, 4 * TINY.hidden_size)
    assert f"{name}.bias" in pack.tensor_names
    with pytest.raises(KeyError, match="kept in 16 bits"):
        pack.layer(name)


def test_a_finished_pack_can_be_given_another_grid(tmp_path):
    source, output = tmp_path / "a.qpack", tmp_path / "b.qpack"
    make_pack(source)
    before = {p: p.read_bytes() for p in source.rglob("*") if p.is_file()}
    pack = open_pack(source)
    layers = {
        name: layer.model_copy(update={"activation_bits": (3,) * len(TIMESTEPS)})
        for name, layer in pack.bit_grid.layers.items()
    }
    grid = pack.bit_grid.model_copy(update={"layers": layers})
    with PackWriter(output) as writer:
        writer.adopt(pack)
        writer.finish(pack.manifest, grid, "another card")
    adopted = verify_pack(output)
    assert adopted.bit_grid == grid
    assert (output / "README.md").read_text() == "another card"
    for name in pack.layer_names:
        assert torch.equal(adopted.layer(name).codes, pack.layer(name).codes)
    assert {p: p.read_bytes() for p in source.rglob("*") if p.is_file()} == before
    # The same grid gives the same pack.
    with PackWriter(tmp_path / "c.qpack") as writer:
        writer.adopt(pack)
        writer.finish(pack.manifest, pack.bit_grid, (source / "README.md").read_text())
    assert (tmp_path / "c.qpack/manifest.json").read_bytes() == before[source / "manifest.json"]


def test_shards_are_adopted_and_links_are_not_required(tmp_path, monkeypatch):
    source = tmp_path / "a.qpack"
    make_pack(source, shard_bytes=20_000)

    def refused(*_arguments):
        raise OSError("no links here")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refused)
    pack = open_pack(source)
    with PackWriter(tmp_path / "b.qpack") as writer:
        writer.adopt(pack)
        writer.finish(pack.manifest, pack.bit_grid, "card")
    adopted = verify_pack(tmp_path / "b.qpack")
    assert len(adopted.headers) == len(pack.headers) > 1
