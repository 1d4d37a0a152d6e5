"""VOSR through the planner's commands: estimate, build, inspect, verify, on tiny random weights."""

import json

import pytest
import torch
from safetensors.torch import save_file

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.pack.reader import open_pack
from artifacts.vosr.config import VOSR_05B
from artifacts.vosr.layout import ROTARY_COSINES, ROTARY_SINES, block_linears
from planner.build.base_model import find_base_model
from planner.build.build import build
from planner.build.network_probe import check_network
from planner.settings import BuildSettings
from planner.target import Target
from tests.artifacts.vosr.make_vosr import TINY, random_state, write_folder
from tests.planner.run_qplan import assert_fails, run_qplan

RANKS = ("--global-rank", "2", "--local-rank", "1")
OPTIONS = ("--target", "W4A4", *RANKS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "VOSR_tiny_os"
    return write_folder(folder, random_state(dtype=torch.bfloat16))


@pytest.fixture(scope="module")
def pack(checkpoint):
    path = checkpoint.parent / "tiny.qpack"
    done = run_qplan("build", checkpoint, *OPTIONS, "-o", path)
    assert done.exit_code == 0, done.output
    assert "recipe q-dit4sr: standard cannot probe without VAE and image encoder" in done.stderr
    assert "the pack will hold no VAE, scheduler and image encoder" in done.stderr
    return path


def test_the_pack_holds_every_block_linear_at_four_bits(pack):
    facts = json.loads(run_qplan("inspect", pack, "--json").stdout)
    assert set(facts["layers"]) == set(block_linears(TINY))
    assert facts["reached"] == {"weight_bits": 4.0, "activation_bits": 4.0}
    assert all(layer["error_db"] > 10 for layer in facts["layers"].values())
    opened = open_pack(pack)
    assert opened.manifest.model.family == "vosr"
    assert opened.config == TINY
    assert opened.manifest.omitted == ()
    assert opened.manifest.rebuilt == (ROTARY_COSINES, ROTARY_SINES)
    assert opened.bit_grid.timesteps == (1000.0,)
    assert opened.manifest.sampling.steps == 1
    assert "t_block.1.weight" in opened.tensor_names  # shared by all blocks: 16 bits
    check_network(opened.manifest)


def test_rotations_and_factors_are_the_methods(pack):
    manifest = open_pack(pack).manifest
    layers = manifest.layers
    assert layers["blocks.0.attn.qkv"].rotation == "32"
    assert manifest.rotation.sizes["32"].construction == "sylvester"
    assert all(layer.global_rank == 2 for layer in layers.values())
    # 85 channels inside the feed-forward have no rotation of order 16 or more, as VOSR's 2730.
    assert TINY.hidden_features == 85
    assert VOSR_05B.hidden_features == 2730
    assert layers["blocks.1.mlp.w3"].rotation == "none"


def test_verify_and_the_model_card(pack):
    assert ": ok, " in run_qplan("verify", pack).stdout
    text = (pack / "README.md").read_text()
    assert "VOSR" in text
    assert "2 blocks of width 32" in text


def test_the_same_build_gives_the_same_bytes(checkpoint, pack):
    again = pack.with_name("again.qpack")
    assert run_qplan("build", checkpoint, *OPTIONS, "-o", again).exit_code == 0
    for file in pack.iterdir():
        assert file.read_bytes() == (again / file.name).read_bytes(), file.name


def test_a_rotary_table_of_other_values_is_kept(tmp_path):
    state = random_state()
    state[ROTARY_SINES] = state[ROTARY_SINES] + 0.5
    checkpoint = open_checkpoint(write_folder(tmp_path / "vosr", state))
    base = find_base_model(checkpoint, None)
    settings = BuildSettings(Target(8, 8), global_rank=2, local_rank=1)
    manifest = build(checkpoint, tmp_path / "own.qpack", settings, base).manifest
    assert manifest.rebuilt == (ROTARY_COSINES,)
    stored = open_pack(tmp_path / "own.qpack").tensor(ROTARY_SINES)
    assert torch.equal(stored, state[ROTARY_SINES].bfloat16())


@pytest.mark.parametrize(
    ("preset", "millions", "linears"),
    [("vosr-0.5b", "486.94", "224"), ("vosr-1.4b", "1,396.70", "288")],
)
def test_estimate_of_the_published_sizes(preset, millions, linears):
    text = run_qplan("estimate", "--preset", preset, *OPTIONS[:2], "--recipe", "q-dit4sr").stdout
    assert f"{millions} M parameters, of which {linears} block linears" in text
    assert "1 step at 512 px, 1024 feature tokens" in text


def test_estimate_counts_tokens_as_the_network_has_them():
    facts = json.loads(
        run_qplan("estimate", "--preset", "vosr-0.5b", *OPTIONS[:2], "--json").stdout
    )
    shapes = block_linears(VOSR_05B)
    macs = sum(1024 * shape.out_features * shape.in_features for shape in shapes.values())
    assert facts["work"]["dense"] == macs  # as many image tokens at 512 px as features


def test_estimate_measures_a_checkpoint(checkpoint):
    done = run_qplan("estimate", checkpoint, *OPTIONS, "--recipe", "q-dit4sr", "--measure")
    assert done.exit_code == 0, done.output
    assert "16 of 16 block linears are active" in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--recipe", "standard"), "decides bits by sensitivity, and there is none"),
        (("--recipe", "q-dit4sr", "--prompt", "sharp"), "VOSR reads no prompts"),
        (("--recipe", "q-dit4sr", "--weight-rounding", "gptq"), "needs VAE and image encoder"),
        (("--recipe", "q-dit4sr", "--modulation", "table"), "VOSR has no modulations to table"),
    ],
)
def test_what_needs_prompts_or_a_base_is_refused(checkpoint, tmp_path, options, said):
    done = run_qplan("build", checkpoint, *OPTIONS, *options, "-o", tmp_path / "x.qpack")
    assert_fails(done, 2, said)
    assert list(tmp_path.iterdir()) == []


def test_a_calibration_without_a_base_is_refused_before_weights_are_quantized(checkpoint, tmp_path):
    (tmp_path / "photos").mkdir()
    done = run_qplan(
        "build", checkpoint, *OPTIONS, "--calib", tmp_path / "photos", "--recipe", "q-dit4sr",
        "-o", tmp_path / "x.qpack",
    )  # fmt: skip
    assert_fails(done, 2, "needs VAE and image encoder")


def test_a_base_without_its_files(checkpoint, tmp_path):
    (tmp_path / "base").mkdir()
    save_file({"x": torch.zeros(1)}, tmp_path / "base" / "model.safetensors")
    done = run_qplan(
        "build", checkpoint, *OPTIONS, "--base", tmp_path / "base", "-o", tmp_path / "x.qpack"
    )
    assert_fails(done, 3, "not a Stable Diffusion 2.1 folder")
