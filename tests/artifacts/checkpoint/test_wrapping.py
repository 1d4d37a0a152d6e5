"""Checkpoints as training programs leave them: prefixes, counters, extra files and keys."""

import json
import shutil

import pytest
import torch

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.dit4sr.layout import POSITION_TABLE
from artifacts.family import families
from schemas.errors import CheckpointError
from tests.artifacts.make_checkpoint import (
    WEIGHTS,
    random_state,
    write_file,
    write_folder,
    write_index,
)
from tests.artifacts.make_pack import TINY

PREFIXES = [
    "model.diffusion_model.",
    "transformer.",
    "module.",
    "_orig_mod.",
    "net.",
    "ema_model.",
    "module._orig_mod.",
    "student.network.",
]


def assert_is(checkpoint, state):
    assert checkpoint.config == TINY
    assert {name: checkpoint.tensor(name).shape for name in checkpoint.names} == {
        name: tensor.shape for name, tensor in state.items()
    }
    for name in ("proj_out.weight", "transformer_blocks.0.attn.to_q.weight"):
        assert torch.equal(checkpoint.tensor(name), state[name])


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("table", [True, False])
def test_a_prefix_before_all_names_is_left_out_and_said(tmp_path, prefix, table):
    state = random_state()
    if not table:
        del state[POSITION_TABLE]
    stored = {prefix + name: tensor for name, tensor in state.items()}
    checkpoint = open_checkpoint(write_file(tmp_path / "m.safetensors", stored))
    if table:
        assert_is(checkpoint, state)
    assert set(checkpoint.names) == set(state)
    assert f"{prefix!r}, which is left out" in checkpoint.notes(None)[0]


def test_a_prefix_in_a_folder_of_shards(tmp_path):
    state = random_state()
    stored = {f"module.{name}": tensor for name, tensor in state.items()}
    path = write_folder(tmp_path / "m", stored, shards=3)
    checkpoint = open_checkpoint(path)
    assert_is(checkpoint, state)
    assert len(list(checkpoint.source_files())) == 3


@pytest.mark.parametrize(
    "extra",
    [
        {"step": torch.tensor(3)},
        {"initted": torch.tensor([True]), "step": torch.tensor([7.0])},
        {"transformer_blocks.0.attn.num_batches_tracked": torch.tensor(3)},
        {"logit_scale": torch.ones(1, 1, dtype=torch.bfloat16)},
    ],
)
@pytest.mark.parametrize("prefix", ["", "ema_model."])
def test_single_numbers_are_ignored_and_said(tmp_path, extra, prefix):
    state = random_state()
    stored = {prefix + name: tensor for name, tensor in state.items()} | extra
    checkpoint = open_checkpoint(write_file(tmp_path / "m.safetensors", stored))
    assert_is(checkpoint, state)
    assert f"ignored single numbers that are no part of the network: {min(extra)}" in str(
        checkpoint.notes(None)
    )


def test_more_than_single_numbers_is_refused(tmp_path):
    stored = random_state() | {"optimizer": torch.ones(2)}
    with pytest.raises(CheckpointError, match="unexpected optimizer"):
        open_checkpoint(write_file(tmp_path / "m.safetensors", stored))
    stored = {f"net.{name}": t for name, t in random_state().items()} | {"other": torch.ones(2)}
    with pytest.raises(CheckpointError, match="not a DiT4SR") as caught:
        open_checkpoint(write_file(tmp_path / "m.safetensors", stored))
    assert "under net." in caught.value.hint


def test_two_networks_in_one_file_are_both_named(tmp_path):
    stored = {
        f"{prefix}.{name}": tensor
        for prefix in ("ema_model", "online_model")
        for name, tensor in random_state().items()
    }
    with pytest.raises(CheckpointError, match="not a DiT4SR") as caught:
        open_checkpoint(write_file(tmp_path / "m.safetensors", stored))
    assert "ema_model., online_model." in caught.value.hint


def test_a_scalar_of_another_quantizer_is_not_ignored(tmp_path):
    stored = random_state() | {"proj_out.scale_weight": torch.tensor(1.0)}
    with pytest.raises(CheckpointError, match="already quantized"):
        open_checkpoint(write_file(tmp_path / "m.safetensors", stored))


EMA = {
    "decay": 0.9999,
    "inv_gamma": 1.0,
    "min_decay": 0.0,
    "optimization_step": 50000,
    "power": 0.6666666666666666,
    "update_after_step": 0,
    "use_ema_warmup": False,
}


def test_the_keys_that_ema_adds_to_a_configuration_are_ignored_and_said(tmp_path):
    state = random_state()
    path = write_folder(tmp_path / "m", state)
    file = path / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | EMA))
    checkpoint = open_checkpoint(path)
    assert_is(checkpoint, state)
    assert checkpoint.notes(None) == [f"{path}: config.json: ignored decay, inv_gamma, min_decay"]


@pytest.mark.parametrize("variant", ["fp16", "bf16", "ema"])
def test_the_index_of_a_variant(tmp_path, variant):
    state = random_state()
    path = write_folder(tmp_path / "m", state, shards=2)
    folder = path / "transformer"
    index = json.loads((folder / f"{WEIGHTS}.index.json").read_text())
    (folder / f"{WEIGHTS}.index.json").unlink()
    renamed = {}
    for file in sorted(folder.glob("*.safetensors")):
        name = file.name.replace("model-", f"model.{variant}-")
        renamed[file.name] = name
        file.rename(folder / name)
    weight_map = {name: renamed[file] for name, file in index["weight_map"].items()}
    write_index(folder, weight_map)
    (folder / f"{WEIGHTS}.index.json").rename(folder / f"{WEIGHTS}.index.{variant}.json")
    assert_is(open_checkpoint(path), state)


@pytest.mark.parametrize("shards", [1, 2])
def test_hidden_files_are_no_weights(tmp_path, shards):
    state = random_state()
    path = write_folder(tmp_path / "m", state, shards=shards)
    folder = path / "transformer"
    if shards == 1:
        (folder / WEIGHTS).rename(folder / "x.safetensors")
    for file in list(folder.iterdir()):
        (folder / f"._{file.name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    assert_is(open_checkpoint(path), state)


def test_the_twin_that_macos_leaves_is_named_for_what_it_is(tmp_path):
    (tmp_path / "._m.safetensors").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(4000))
    with pytest.raises(CheckpointError, match="AppleDouble"):
        open_checkpoint(tmp_path / "._m.safetensors")


def test_a_folder_of_variants_lists_them(tmp_path):
    for name in ("q", "f", "r1"):
        write_folder(tmp_path / "all" / f"dit4sr_{name}", random_state())
    write_file(tmp_path / "all" / "dit4sr_q" / "a.safetensors", random_state())
    (tmp_path / "all" / ".cache").mkdir()
    (tmp_path / "all" / "empty").mkdir()
    with pytest.raises(CheckpointError, match="in dit4sr_f, dit4sr_q, dit4sr_r1") as caught:
        open_checkpoint(tmp_path / "all")
    assert caught.value.hint == "name one of these folders"


@pytest.mark.parametrize("link", ["file", "folder", "shard", "other disk"])
def test_links_are_followed_wherever_they_point(tmp_path, link):
    state = random_state()
    path = write_folder(tmp_path / "m", state, shards=2 if link == "shard" else 1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place = path / "transformer"
    if link != "folder":
        place = sorted(place.glob("*.safetensors"))[0]
    target = elsewhere / ("0" * 64 if link == "file" else place.name)
    shutil.move(place, target)
    place.symlink_to(target)
    assert_is(open_checkpoint(path), state)


BASES = {
    "one file": [
        "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight",
        "model.diffusion_model.pos_embed",
        "first_stage_model.decoder.conv_in.weight",
        "text_encoders.clip_l.transformer.text_model.embeddings.position_embedding.weight",
    ],
    "its transformer": ["joint_blocks.0.x_block.attn.qkv.weight", "pos_embed"],
    "diffusers": ["pos_embed.proj.weight", "transformer_blocks.0.attn.add_q_proj.weight"],
}


@pytest.mark.parametrize("names", BASES.values(), ids=BASES)
def test_the_base_model_is_told_where_it_goes(tmp_path, names):
    file = write_file(tmp_path / "sd3.5_medium.safetensors", {n: torch.zeros(2, 2) for n in names})
    with pytest.raises(CheckpointError, match="not a DiT4SR transformer") as caught:
        open_checkpoint(file)
    assert caught.value.hint.startswith("this is the base model: give it as --base")


@pytest.mark.parametrize("gone", ["context_embedder.weight", "proj_out.weight"])
def test_a_network_that_lacks_a_tensor_may_be_a_part(tmp_path, gone):
    names = [*families()[0].lacks({}), "transformer_blocks.0.attn.to_q.weight"]
    tensors = {name: torch.zeros(2, 2) for name in names if name != gone}
    with pytest.raises(CheckpointError, match=f"it lacks {gone} and") as caught:
        open_checkpoint(write_file(tmp_path / "cut.safetensors", tensors))
    assert caught.value.hint.startswith("it may be a part")


def test_another_network_with_joint_attention_is_not_taken_for_the_base(tmp_path):
    names = ["x_embedder.weight", "transformer_blocks.0.attn.add_q_proj.weight"]
    file = write_file(tmp_path / "flux.safetensors", {n: torch.zeros(2, 2) for n in names})
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(file)
    assert "--base" not in caught.value.hint
