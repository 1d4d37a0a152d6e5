"""Values that are well-formed and senseless: exit code 3 that names the field, not the user."""

import struct

import pytest
import torch

from artifacts.dit4sr.config import TransformerConfig
from artifacts.pack.reader import open_pack, verify_pack
from schemas.errors import PackError
from tests.artifacts.make_checkpoint import random_state, write_folder
from tests.artifacts.make_pack import TINY
from tests.artifacts.tamper import edit_grid, edit_manifest, reseal
from tests.faults.pack_setup import LAYER, write_values
from tests.planner.run_qplan import assert_fails, run_qplan


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_side_px", 65536),
        ("min_side_px", 0),
        ("guidance", 1e308),
        ("guidance", 1e6),
        ("shift", 1e308),
        ("shift", 1e-308),
        ("steps", 10**30),
        ("tile_latent", 3),
        ("tile_latent", 18),
        ("tile_latent", 65537),
        ("overlap_latent", 3),
        ("overlap_latent", 16),
        ("upscale", 8),
    ],
)
def test_sampling_defaults_of_a_pack(pack, field, value):
    edit_manifest(pack, lambda m: m["sampling"].update({field: value}))
    with pytest.raises(PackError, match=rf"manifest\.json: sampling.*{field}"):
        open_pack(pack)
    assert_fails(run_qplan("verify", pack), 3, "manifest.json", field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pos_embed_max_size", 4096),
        ("pos_embed_max_size", 0),
        ("dual_attention_layers", [-1] * 100_000),
        ("num_layers", 10**9),
        ("out_channels", 5),
        ("sample_size", 10**30),
    ],
)
def test_the_configuration_of_a_pack(pack, field, value):
    edit_manifest(pack, lambda m: m["model"]["config"].update({field: value}))
    with pytest.raises(PackError, match=rf"manifest\.json: model\.config.*{field}"):
        open_pack(pack)


@pytest.mark.parametrize("steps", [[1e308, 500.0, 100.0], [1001.0, 500.0, 100.0]])
def test_timesteps_beyond_the_scheduler(pack, steps):
    edit_grid(pack, lambda g: g.update(timesteps=steps))
    with pytest.raises(PackError, match=r"bit_grid\.json: timesteps\.0"):
        open_pack(pack)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (f"{LAYER}.global_up", struct.pack("<H", 0x7F61)),  # 3e38
        (f"{LAYER}.local_down", struct.pack("<H", 0xFF61)),
        (f"{LAYER}.bias", struct.pack("<H", 0x7F61)),
        ("proj_out.weight", struct.pack("<H", 0x7F61)),
        (f"{LAYER}.scale", struct.pack("<f", 1e30)),
    ],
)
def test_numbers_that_overflow_when_they_are_used(pack, name, value):
    write_values(pack, name, value)
    reseal(pack)
    with pytest.raises(PackError, match=rf"{name} has a value that is far too large"):
        open_pack(pack)


def test_a_smoothing_that_would_divide_by_nearly_nothing(pack):
    layers = open_pack(pack).manifest.layers
    name = next(name for name, record in layers.items() if record.smoothing)
    write_values(pack, f"{name}.smoothing", struct.pack("<f", 1e-40))
    reseal(pack)
    with pytest.raises(PackError, match=rf"{name}\.smoothing has a value near zero"):
        open_pack(pack)


def test_a_prompt_that_overflows(pack):
    path = pack / "prompts.safetensors"
    path.write_bytes(path.read_bytes()[:-2] + struct.pack("<H", 0x7F61))
    reseal(pack)
    with pytest.raises(PackError, match=r"prompts\.safetensors: tensor .* far too large"):
        open_pack(pack)


@pytest.mark.parametrize(
    ("field", "value"), [("pos_embed_max_size", 4096), ("dual_attention_layers", (0,) * 10_000)]
)
def test_the_configuration_of_a_checkpoint(tmp_path, field, value):
    config = TransformerConfig.model_construct(**{**TINY.model_dump(), field: value})
    path = write_folder(tmp_path / "m", random_state(), config)
    assert_fails(run_qplan("build", path), 3, "config.json", field)


def test_a_family_s_tile_is_cut_to_a_network_with_a_smaller_table(tmp_path):
    """Nobody chose it: a pack must not be born with a tile that its network refuses."""
    path = write_folder(tmp_path / "m", random_state())
    result = run_qplan("build", path, "--global-rank", 2, "--local-rank", 2)
    assert result.exit_code == 0, result.output
    sampling = verify_pack(tmp_path / "m-w4a4.qpack").manifest.sampling
    assert (sampling.tile_latent, sampling.overlap_latent) == (16, 6)


def test_the_largest_weights_that_are_read_make_a_pack(tmp_path):
    state = random_state(dtype=torch.float32)
    state[f"{LAYER}.weight"] *= 1e11
    path = write_folder(tmp_path / "m", state)
    result = run_qplan("build", path, "--global-rank", 2, "--local-rank", 2)
    assert result.exit_code == 0, result.output
    verify_pack(tmp_path / "m-w4a4.qpack")
