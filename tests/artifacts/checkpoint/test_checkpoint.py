"""Opening source checkpoints in every form that people have them."""

import hashlib
import json
import os
import shutil

import pytest
import torch

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.dit4sr.layout import tensor_shapes
from schemas.errors import CheckpointError
from tests.artifacts.make_checkpoint import (
    WEIGHTS,
    random_state,
    write_file,
    write_folder,
)
from tests.artifacts.make_pack import TINY


def assert_holds(checkpoint, state):
    assert checkpoint.config == TINY
    assert checkpoint.names == [name for name in tensor_shapes(TINY) if name in state]
    for name, tensor in state.items():
        found = checkpoint.tensor(name)
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_diffusers_folder(tmp_path, dtype, shards):
    state = random_state(dtype=dtype)
    assert_holds(open_checkpoint(write_folder(tmp_path / "m", state, shards=shards)), state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_one_bare_file(tmp_path, dtype):
    state = random_state(dtype=dtype)
    checkpoint = open_checkpoint(write_file(tmp_path / "m.safetensors", state))
    assert_holds(checkpoint, state)
    assert checkpoint.parts_dir is None


def test_a_folder_without_config_is_read_like_a_bare_file(tmp_path):
    state = random_state()
    path = write_folder(tmp_path / "m", state)
    (path / "transformer" / "config.json").unlink()
    assert_holds(open_checkpoint(path), state)


def test_a_missing_position_table_is_no_error(tmp_path):
    state = random_state(table=False)
    assert_holds(open_checkpoint(write_folder(tmp_path / "m", state)), state)


def test_the_transformers_own_folder_knows_its_pipeline(tmp_path, monkeypatch):
    path = write_folder(tmp_path / "m", random_state())
    assert open_checkpoint(path).parts_dir == path
    assert open_checkpoint(path / "transformer").parts_dir == path
    monkeypatch.chdir(path / "transformer")
    assert open_checkpoint(type(path)()).parts_dir == path


def test_a_flat_folder_is_its_own_pipeline_and_not_its_parent(tmp_path):
    write_folder(tmp_path / "m", random_state())
    flat = (tmp_path / "m" / "transformer").rename(tmp_path / "flat")
    assert open_checkpoint(flat).parts_dir == flat


@pytest.mark.parametrize("rival", ["diffusion_pytorch_model.fp16.safetensors", "a.safetensors"])
def test_the_standard_name_wins_over_variants(tmp_path, rival):
    state = random_state()
    path = write_folder(tmp_path / "m", state)
    write_file(path / "transformer" / rival, random_state(seed=1))
    assert_holds(open_checkpoint(path), state)


def test_a_single_file_of_another_name_is_found_and_two_are_refused(tmp_path):
    state = random_state()
    path = write_folder(tmp_path / "m", state)
    folder = path / "transformer"
    (folder / WEIGHTS).rename(folder / "dit4sr_q.safetensors")
    assert_holds(open_checkpoint(path), state)
    shutil.copy(folder / "dit4sr_q.safetensors", folder / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"2 weight files.*dit4sr_q\.safetensors, other"):
        open_checkpoint(path)


def test_links_into_a_hub_caches_blobs_are_followed(tmp_path):
    model = tmp_path / "models--someone--dit4sr"
    state = random_state()
    path = write_folder(model / "snapshots" / "abc", state, shards=2)
    blobs = model / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted((path / "transformer").iterdir())):
        file.rename(blobs / f"{number:064x}")
        file.symlink_to(f"../../../blobs/{number:064x}")
    checkpoint = open_checkpoint(path)
    assert_holds(checkpoint, state)
    # The name that people know, not that of the blob.
    assert [file.name for file in checkpoint.source_files()] == [
        "diffusion_pytorch_model-00001-of-00002.safetensors",
        "diffusion_pytorch_model-00002-of-00002.safetensors",
    ]


def test_opening_reads_no_weights(tmp_path, monkeypatch):
    path = write_folder(tmp_path / "m", random_state())
    reads = []
    monkeypatch.setattr(
        "artifacts.files.safetensors_io.read_tensor", lambda *_, **__: reads.append(1)
    )
    open_checkpoint(path)
    assert reads == []


def test_source_files_are_hashed_whole(tmp_path):
    path = write_folder(tmp_path / "m", random_state(), shards=2)
    checkpoint = open_checkpoint(path)
    found = list(checkpoint.source_files())
    for record in found:
        data = (path / "transformer" / record.name).read_bytes()
        assert (record.bytes, record.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert checkpoint.file_bytes == sum(record.bytes for record in found)


def test_a_file_name_that_json_cannot_carry_is_made_printable(tmp_path):
    path = tmp_path / os.fsdecode(b"a\\b\xff\n.safetensors")
    write_file(tmp_path / "m.safetensors", random_state()).rename(path)
    assert [file.name for file in open_checkpoint(path).source_files()] == ["a_b__.safetensors"]


def test_a_file_replaced_after_opening_is_noticed(tmp_path):
    path = write_file(tmp_path / "m.safetensors", random_state())
    checkpoint = open_checkpoint(path)
    write_file(tmp_path / "new.safetensors", random_state(seed=1)).replace(path)
    with pytest.raises(CheckpointError, match="replaced"):
        checkpoint.tensor("proj_out.weight")
    with pytest.raises(CheckpointError, match="replaced"):
        list(checkpoint.source_files())


def test_an_unset_quantization_config_is_ignored(tmp_path):
    path = write_folder(tmp_path / "m", random_state())
    file = path / "transformer" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "quantization_config": None}))
    assert open_checkpoint(path).config == TINY
