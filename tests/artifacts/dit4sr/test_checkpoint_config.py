"""The configuration of a bare file, from names and shapes alone."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.layout import POSITION_TABLE
from artifacts.dit4sr.position_table import sincos_table
from schemas.errors import CheckpointError
from tests.artifacts.make_checkpoint import random_state, write_file
from tests.artifacts.make_pack import TINY

GOLDEN = Path(__file__).parents[4] / "shared" / "golden"


def changed(**fields):
    return TransformerConfig.model_validate({**TINY.model_dump(), **fields})


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        changed(dual_attention_layers=()),
        changed(num_layers=3, dual_attention_layers=(1, 2)),
        changed(patch_size=1, in_channels=16, out_channels=16),
        changed(num_attention_heads=5, attention_head_dim=8, caption_projection_dim=40),
        changed(sample_size=2),
    ],
    ids=["tiny", "not-dual", "late-dual", "patch-1", "five-heads", "one-token"],
)
def test_every_field_is_recovered(tmp_path, config):
    path = write_file(tmp_path / "m.safetensors", random_state(config))
    assert open_checkpoint(path).config == config


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("side", "base"), [(384, 64), (96, 95), (96, 96), (33, 48), (8, 24)])
def test_the_training_size_is_found_in_a_rounded_table(tmp_path, dtype, side, base):
    # (96, 95) from (96, 96) is what a single bfloat16 sine cannot tell.
    config = changed(
        pos_embed_max_size=side,
        sample_size=2 * base,
        num_attention_heads=1,
        attention_head_dim=4,
        caption_projection_dim=4,
    )
    state = random_state(config)
    state[POSITION_TABLE] = sincos_table(config).to(dtype)
    assert open_checkpoint(write_file(tmp_path / "m.safetensors", state)).config == config


def test_without_a_table_the_published_sizes_are_assumed(tmp_path):
    path = write_file(tmp_path / "m.safetensors", random_state(table=False))
    published = TransformerConfig()
    assert open_checkpoint(path).config == changed(
        sample_size=published.sample_size, pos_embed_max_size=published.pos_embed_max_size
    )


def test_a_table_of_nan_is_reported_when_it_is_read(tmp_path):
    state = random_state()
    state[POSITION_TABLE] = torch.full_like(state[POSITION_TABLE], torch.nan)
    checkpoint = open_checkpoint(write_file(tmp_path / "m.safetensors", state))
    with pytest.raises(CheckpointError, match=POSITION_TABLE):
        checkpoint.tensor(POSITION_TABLE)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("pos_embed.proj.weight", (32, 16)),
        ("pos_embed.proj.weight", (32, 4, 0, 0)),
        ("transformer_blocks.0.attn.norm_q.weight", (0,)),
        ("transformer_blocks.0.attn.norm_q.weight", (5,)),
        ("proj_out.weight", (0, 32)),
        ("context_embedder.weight", (32,)),
        (POSITION_TABLE, (1, 0, 32)),
        (POSITION_TABLE, (0, 64, 32)),
        (POSITION_TABLE, (1, 65, 32)),
        (POSITION_TABLE, (1, 64, 0)),
        (POSITION_TABLE, (64, 32)),
        ("transformer_blocks.9999.attn.to_q.weight", (32, 32)),
    ],
)
def test_senseless_shapes_are_refused(tmp_path, name, shape):
    state = random_state() | {name: torch.zeros(shape, dtype=torch.bfloat16)}
    with pytest.raises(CheckpointError, match=r"m\.safetensors"):
        open_checkpoint(write_file(tmp_path / "m.safetensors", state))


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="golden tensors are not part of the repository")
@pytest.mark.parametrize("variant", ["q", "r1"])
def test_a_network_that_others_made(tmp_path, variant):
    source = GOLDEN / f"dit4sr_tiny_{variant}.safetensors"
    tensors = load_file(source)
    state = {n.removeprefix("state."): t for n, t in tensors.items() if n.startswith("state.")}
    with safe_open(source, "pt") as file:
        notes = file.metadata()
    found = open_checkpoint(write_file(tmp_path / "m.safetensors", state)).config
    expected = TransformerConfig.from_diffusers(json.loads(notes["config"]))
    assert found == expected
