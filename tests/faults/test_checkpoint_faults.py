"""Bad source checkpoints, rows 1 to 10 of the fault table, through the real ``qplan build``."""

import json
import pickle
import subprocess
import sys

import pytest
import torch

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.dit4sr.config import TransformerConfig
from artifacts.pack.reader import open_pack, verify_pack
from schemas.errors import CheckpointError
from tests.artifacts.make_checkpoint import (
    INDEX,
    WEIGHTS,
    random_state,
    write_file,
    write_folder,
    write_index,
)
from tests.artifacts.make_pack import TINY, make_pack
from tests.planner.run_qplan import assert_fails, leftovers, run_qplan

RANKS = ("--global-rank", 2, "--local-rank", 2)
LAYER = "transformer_blocks.1.ff.net.2"


def refused(tmp_path, checkpoint, *parts):
    """The build ends with 3 and says ``parts``; nothing is left behind."""
    before = leftovers(tmp_path)
    result = run_qplan("build", checkpoint, *RANKS, "-o", tmp_path / "out.qpack")
    assert_fails(result, 3, *parts)
    assert leftovers(tmp_path) == before
    return result.stderr


# Row 1


@pytest.mark.parametrize("keep", [3, 8, 200, -1, -1000])
def test_a_truncated_file_says_expected_and_actual_bytes(tmp_path, keep):
    path = write_file(tmp_path / "m.safetensors", random_state())
    data = path.read_bytes()
    cut = data[:keep]
    path.write_bytes(cut)
    parts = [str(len(cut)), "m.safetensors"]
    if keep < 0:
        parts += ["truncated", str(len(data))]
    refused(tmp_path, path, *parts)


def test_a_truncated_shard_is_named(tmp_path):
    path = write_folder(tmp_path / "m", random_state(), shards=3)
    shard = path / "transformer" / "diffusion_pytorch_model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    refused(tmp_path, path, shard.name, "truncated")


def test_an_empty_file(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"")
    refused(tmp_path, tmp_path / "m.safetensors", "0 bytes")


# Row 2

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:12ab\nsize 5433628288\n"
PAGE = b"\n<!DOCTYPE html><html><title>Sign in</title></html>"


@pytest.mark.parametrize(
    ("data", "said"), [(POINTER, "Git-LFS pointer"), (PAGE, "web page"), (b"GGUF\3\0", "GGUF")]
)
def test_something_else_in_its_place_is_named(tmp_path, data, said):
    bare = tmp_path / "m.safetensors"
    bare.write_bytes(data)
    refused(tmp_path, bare, said)
    folder = write_folder(tmp_path / "m", random_state())
    (folder / "transformer" / WEIGHTS).write_bytes(data)
    refused(tmp_path, folder, said)


# Row 3


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".PTH", ".bin", ".pkl"])
def test_a_pickle_is_refused_by_its_name_unread(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    path.write_bytes(b"anything")
    assert "save_file" in refused(tmp_path, path, "pickle", "not read")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_under_another_name_is_recognised(tmp_path, protocol):
    path = tmp_path / "m.safetensors"
    path.write_bytes(pickle.dumps({"state_dict": list(range(100))}, protocol=protocol))
    assert "save_file" in refused(tmp_path, path, "pickle")


def test_a_torch_archive_under_another_name_is_recognised(tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "m.safetensors")
    assert "save_file" in refused(tmp_path, tmp_path / "m.safetensors", "pickle")


def test_a_picture_is_no_safetensors_file(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(100))
    refused(tmp_path, tmp_path / "photo.png", "photo.png: a picture, not safetensors")


def test_a_folder_of_pickles_says_how_to_convert(tmp_path):
    path = write_folder(tmp_path / "m", random_state())
    (path / "transformer" / WEIGHTS).rename(path / "transformer" / "pytorch_model.BIN")
    assert "save_file" in refused(tmp_path, path, "pytorch_model.BIN")


# Row 4


def test_missing_shards_are_listed(tmp_path):
    path = write_folder(tmp_path / "m", random_state(), shards=4)
    names = [f"diffusion_pytorch_model-{n:05d}-of-00004.safetensors" for n in (2, 4)]
    for name in names:
        (path / "transformer" / name).unlink()
    refused(tmp_path, path, "2 of 4 shards are missing", *names)


def test_nothing_at_all(tmp_path):
    refused(tmp_path, tmp_path / "absent.safetensors", "no such file")
    refused(tmp_path, tmp_path / "absent" / "deeper.safetensors", "no such file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path, tmp_path / "empty", "no .safetensors weights")
    refused(tmp_path, tmp_path / ("n" * 300), "too long")


# Row 5


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "a/../../b", "", ".", "a\0b", "..\\b"]
)
def test_a_shard_path_out_of_the_folder(tmp_path, name):
    path = write_folder(tmp_path / "m", random_state(), shards=2)
    # What the path would lead to is valid, so that only the path can be the reason.
    write_file(path / "secret.safetensors", random_state())
    write_index(path / "transformer", dict.fromkeys(random_state(), name))
    refused(tmp_path, path, "leads out of the folder")


def test_a_loop_of_links(tmp_path):
    path = write_folder(tmp_path / "m", random_state())
    file = path / "transformer" / WEIGHTS
    file.unlink()
    file.symlink_to(file)
    refused(tmp_path, path, WEIGHTS, "cannot be read")


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', '{"a": NaN}', "{"]
)
def test_a_damaged_index(tmp_path, content):
    path = write_folder(tmp_path / "m", random_state(), shards=2)
    (path / "transformer" / INDEX).write_text(content)
    refused(tmp_path, path, INDEX)


def test_a_tensor_in_two_shards(tmp_path):
    state = random_state()
    path = write_folder(tmp_path / "m", state, shards=2)
    first, second = sorted((path / "transformer").glob("*.safetensors"))
    write_file(first, state)
    refused(tmp_path, path, second.name, "in another shard too")


# Row 6


def test_another_architecture_shows_the_first_differing_names(tmp_path):
    state = {"double_blocks.0.img_attn.qkv.weight": torch.zeros(6, 2), "img_in.bias": torch.ones(2)}
    said = refused(tmp_path, write_file(tmp_path / "flux.safetensors", state), "not a DiT4SR")
    assert "double_blocks.0.img_attn.qkv.weight" in said
    assert "context_embedder.weight" in said


def test_another_architectures_folder_is_told_by_names_and_not_by_its_config(tmp_path):
    path = write_folder(tmp_path / "m", {"x_embedder.weight": torch.zeros(2, 2)})
    (path / "transformer" / "config.json").write_text('{"guidance_embeds": true}')
    refused(tmp_path, path, "not a DiT4SR transformer", "x_embedder.weight")


def test_plain_stable_diffusion_lacks_the_control_stream(tmp_path):
    state = {name: t for name, t in random_state().items() if "control" not in name}
    name = "transformer_blocks.0.attn.to_q_control.weight"
    refused(tmp_path, write_folder(tmp_path / "m", state), "not a DiT4SR", name)


def test_one_missing_and_one_unexpected_tensor_are_both_named(tmp_path):
    state = random_state()
    state["proj_out.scale"] = state.pop("proj_out.bias")
    path = write_folder(tmp_path / "m", state)
    refused(tmp_path, path, "missing proj_out.bias", "unexpected proj_out.scale")


def test_a_whole_pipeline_in_one_file_is_not_taken_for_a_quantized_one(tmp_path):
    state = {"cond_stage_model.position_ids": torch.arange(77), "alphas": torch.ones(1000)}
    said = refused(tmp_path, write_file(tmp_path / "sd.safetensors", state), "not a DiT4SR")
    assert "quantized" not in said


def test_config_and_tensors_that_disagree(tmp_path):
    wider = TINY.model_copy(update={"joint_attention_dim": 28})
    path = write_folder(tmp_path / "m", random_state(), wider)
    refused(tmp_path, path, "context_embedder.weight has shape [32, 24]", "[32, 28]")


@pytest.mark.parametrize("content", ["[]", '{"sample_size": "16"}', '{"depth": 2}', "\0"])
def test_a_damaged_config(tmp_path, content):
    path = write_folder(tmp_path / "m", random_state())
    (path / "transformer" / "config.json").write_text(content)
    refused(tmp_path, path, "config.json")


def test_a_weight_of_integers(tmp_path):
    state = random_state()
    state["proj_out.bias"] = state["proj_out.bias"].to(torch.int64)
    refused(tmp_path, write_folder(tmp_path / "m", state), "proj_out.bias is I64")


# Row 7


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e16, -3e38])
@pytest.mark.parametrize(
    "name", [f"{LAYER}.weight", f"{LAYER}.bias", "proj_out.weight", "pos_embed.pos_embed"]
)
def test_a_value_that_is_not_finite_names_the_tensor(tmp_path, name, value):
    state = random_state(dtype=torch.float32)
    state[name].view(-1)[-1] = value
    refused(tmp_path, write_folder(tmp_path / "m", state), name)


def test_a_value_that_is_not_finite_where_nothing_reads_it_does_no_harm(tmp_path):
    state = random_state()
    state["transformer_blocks.0.attn2.add_q_proj.weight"].fill_(torch.nan)
    result = run_qplan("build", write_folder(tmp_path / "m", state), *RANKS)
    assert result.exit_code == 0, result.output
    verify_pack(tmp_path / "m-w4a4.qpack")


# Row 8


def test_an_all_zero_layer_gives_a_valid_pack_and_a_warning(tmp_path):
    state = random_state()
    state[f"{LAYER}.weight"].zero_()
    result = run_qplan("build", write_folder(tmp_path / "m", state), *RANKS)
    assert result.exit_code == 0, result.output
    assert f"warning: layer {LAYER}: all zeros" in result.stderr
    pack = verify_pack(tmp_path / "m-w4a4.qpack")
    assert not pack.layer(LAYER).decode().any()
    assert pack.manifest.layers[LAYER].error_db is None
    assert pack.manifest.layers[LAYER].weight_bits == 2  # no bit is worth spending on it


# Row 9


def test_a_pack_is_refused_as_a_source(tmp_path):
    make_pack(tmp_path / "done.qpack")
    refused(tmp_path, tmp_path / "done.qpack", "this is a pack, already quantized")
    refused(tmp_path, tmp_path / "done.qpack" / "transformer.safetensors", "already quantized")


@pytest.mark.parametrize(
    ("part", "tensor"),
    [
        ("qweight", torch.zeros(4, 4, dtype=torch.int32)),
        ("weight_scale", torch.ones(32)),
        ("weight.absmax", torch.zeros(4)),
        ("weight", torch.zeros(32, 32, dtype=torch.int8)),
        ("weight", torch.zeros(32, 32).to(torch.float8_e4m3fn)),
    ],
)
def test_other_quantizers_work_is_refused(tmp_path, part, tensor):
    state = random_state() | {f"transformer_blocks.0.attn.to_q.{part}": tensor}
    said = refused(tmp_path, write_file(tmp_path / "m.safetensors", state), "already quantized")
    assert f"to_q.{part}" in said


def test_a_quantization_config_is_refused(tmp_path):
    path = write_folder(tmp_path / "m", random_state())
    file = path / "transformer" / "config.json"
    content = json.loads(file.read_text()) | {"quantization_config": {"load_in_4bit": True}}
    file.write_text(json.dumps(content))
    refused(tmp_path, path, "config.json", "quantization_config")


# Row 10


@pytest.mark.parametrize(
    ("heads", "head_dim", "rotations"),
    [
        # 36 = 9 * 4: its largest power of two is too small; 144 = 9 * 16 gets blocks of 16.
        (9, 4, {"144": ("block", 16)}),
        # 40 = 20 * 2, and 160 = 20 * 8.
        (5, 8, {"40": ("paley20", 40), "160": ("paley20", 160)}),
        # 56 = 7 * 8, which is below 16; 224 = 7 * 32.
        (7, 8, {"224": ("block", 32)}),
    ],
)
def test_sizes_without_a_hadamard_matrix_are_built_with_a_recorded_fallback(
    tmp_path, heads, head_dim, rotations
):
    width = heads * head_dim
    config = TransformerConfig.model_validate(
        {
            **TINY.model_dump(),
            "num_attention_heads": heads,
            "attention_head_dim": head_dim,
            "caption_projection_dim": width,
        }
    )
    path = write_folder(tmp_path / "m", random_state(config), config)
    result = run_qplan("build", path, *RANKS)
    assert result.exit_code == 0, result.output
    manifest = verify_pack(tmp_path / "m-w4a4.qpack").manifest
    recorded = manifest.rotation.sizes.items()
    assert {size: (r.construction, r.block_size) for size, r in recorded} == rotations
    for record in manifest.layers.values():
        size = str(record.in_features)
        assert record.rotation == (size if size in rotations else "none")


# All of them


def test_a_shell_sees_the_exit_code_and_no_traceback(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(POINTER)
    command = [
        sys.executable,
        "-c",
        "from planner.cli.main import main; main()",
        "build",
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"error: {path}: a Git-LFS pointer, not safetensors",
        "hint: fetch the real file with `git lfs pull`",
    ]
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("seed", range(8))
def test_mutated_files_give_a_typed_error_or_open(tmp_path, seed):
    data = bytearray(write_file(tmp_path / "m.safetensors", random_state()).read_bytes())
    generator = torch.Generator().manual_seed(seed)
    path = tmp_path / "mutated.safetensors"
    refusals = 0
    header_bytes = 8 + int.from_bytes(data[:8], "little")
    for _ in range(40):
        mutated = bytearray(data)
        place, value, kind = torch.randint(0, header_bytes, (3,), generator=generator).tolist()
        if kind % 3 == 0:
            mutated[place] ^= 1 << value % 8
        elif kind % 3 == 1:
            del mutated[place : place + value % 64]
        else:
            mutated[place:place] = mutated[value : value + 32]
        path.write_bytes(mutated)
        try:
            open_checkpoint(path)
        except CheckpointError:
            refusals += 1
    assert refusals > 30  # nearly every byte of a header matters


def test_an_older_pack_survives_a_bad_checkpoint(tmp_path):
    make_pack(tmp_path / "out.qpack")
    before = (tmp_path / "out.qpack" / "manifest.json").read_bytes()
    state = random_state()
    state[f"{LAYER}.weight"][0, 0] = torch.nan
    path = write_folder(tmp_path / "m", state)
    result = run_qplan("build", path, *RANKS, "-o", tmp_path / "out.qpack", "--force")
    assert_fails(result, 3, f"{LAYER}.weight")
    assert open_pack(tmp_path / "out.qpack").manifest
    assert (tmp_path / "out.qpack" / "manifest.json").read_bytes() == before
    assert leftovers(tmp_path) == ["out.qpack"]
