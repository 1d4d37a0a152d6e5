"""``qplan export --format comfy``: what the file holds, and how far it is from the pack."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from artifacts.comfy.codebook import W4A8, CodebookWeight
from artifacts.comfy.layouts import W4A4, ComfyWeight
from artifacts.pack.reader import open_pack
from planner.export.comfy import METADATA
from tests.artifacts.make_pack import make_pack
from tests.planner.calibration_setup import make_setup
from tests.planner.run_qplan import assert_fails, run_qplan


@pytest.fixture
def pack(tmp_path):
    make_pack(tmp_path / "m.qpack")
    return tmp_path / "m.qpack"


def exported(*arguments):
    result = run_qplan("export", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def markers_of(file):
    with safe_open(file, "pt") as opened:
        return json.loads(opened.metadata()[METADATA])["layers"]


def decoded_from(tensors, name, marker):
    """What the file's tensors of a layer mean, [out, in]."""
    of = {
        key.removeprefix(f"{name}."): value
        for key, value in tensors.items()
        if key.startswith(f"{name}.weight")
    }
    block = marker["convrot_groupsize"]
    if marker["format"] == W4A8:
        parts = ("weight", "weight_s_rel", "weight_s_channel", "weight_codebook")
        return CodebookWeight(*(of[part] for part in parts), block).decode()
    return ComfyWeight(marker["format"], of["weight"], of["weight_scale"], block).decode()


@pytest.mark.parametrize(
    ("options", "least_db"),
    [
        (("--bits", "8"), 30),
        (("--bits", "auto"), 10),
        (("--activation-bits", "8"), 15),
    ],
)
def test_every_layer_decodes_to_the_pack_within_the_printed_error(
    pack, tmp_path, options, least_db
):
    file = tmp_path / "a.safetensors"
    found = exported(pack, "-o", file, *options)
    tensors, markers, opened = load_file(file), markers_of(file), open_pack(pack)
    assert found["bytes"] == file.stat().st_size
    assert set(found["layers"]) == set(opened.layer_names)
    for name in opened.layer_names:
        weight = opened.layer(name).decode(torch.float32)
        facts = found["layers"][name]
        if facts["layout"] == "bfloat16":
            assert name not in markers
            assert torch.equal(tensors[f"{name}.weight"], weight.bfloat16())
            continue
        marker = json.loads(tensors[f"{name}.comfy_quant"].numpy().tobytes())
        assert marker == markers[name]
        assert marker["format"] == facts["layout"]
        decoded = decoded_from(tensors, name, marker)
        error = 20 * float((weight.norm() / (weight - decoded).norm()).log10())
        assert error == pytest.approx(facts["error_db"], abs=0.01)
        assert error > least_db
        if opened.layer(name).bias is not None:
            assert torch.equal(tensors[f"{name}.bias"], opened.layer(name).bias)
    for name in opened.tensor_names:
        assert torch.equal(tensors[name], opened.tensor(name))
    assert found["mean_pack_error_db"] is None


def test_weights_of_the_source_are_coded_where_it_is_given(tmp_path):
    setup = make_setup(tmp_path)
    pack = tmp_path / "m.qpack"
    build = ("build", setup.checkpoint, "-o", pack, "--base", setup.base)
    options = ("--global-rank", 2, "--local-rank", 2, "--modulation", "table")
    result = run_qplan(*build, *options)
    assert result.exit_code == 0, result.stderr
    file = tmp_path / "a.safetensors"
    assert_fails(run_qplan("export", pack, "-o", file), 2, "table", "--checkpoint")
    assert not file.exists()
    found = exported(pack, "-o", file, "--checkpoint", setup.checkpoint, "--bits", "8")
    assert found["mean_error_db"] > found["mean_pack_error_db"] > 0
    names = set(load_file(file))
    assert any("norm1.linear" in name for name in names)


@pytest.mark.parametrize(
    ("target", "options", "layout"),
    [
        ("W4A4", (), W4A4),
        ("W4A8", (), W4A8),
        ("W4A8", ("--activation-bits", "4"), W4A4),
    ],
)
def test_layers_of_four_bits_take_the_layout_nearer_to_the_packs_activations(
    tmp_path, target, options, layout
):
    setup, pack = make_setup(tmp_path), tmp_path / "m.qpack"
    asked = ("--recipe", "quarot", "--target", target, "--base", setup.base)
    result = run_qplan("build", setup.checkpoint, "-o", pack, *asked)
    assert result.exit_code == 0, result.stderr
    found = exported(pack, "-o", tmp_path / "a.safetensors", *options)
    layouts = {facts["layout"] for facts in found["layers"].values()}
    assert layout in layouts
    assert not {W4A4, W4A8} - {layout} & layouts


def test_words_and_a_table_of_layers(pack, tmp_path):
    result = run_qplan("export", pack, "-o", tmp_path / "a.safetensors", "--layers")
    assert result.exit_code == 0, result.stderr
    assert "mean:" in result.stdout
    assert "transformer_blocks.0" in result.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-o", "a.gguf"), "a .safetensors file"),
        (("-o", "absent/a.safetensors"), "a .safetensors file"),
        (("-o", "a.safetensors", "--format", "gguf"), "--format gguf"),
        (("-o", "a.safetensors", "--bits", "3"), "--bits 3"),
        (("-o", "a.safetensors", "--activation-bits", "6"), "--activation-bits 6"),
        (("-o", "a.safetensors", "--bits", "8", "--activation-bits", "4"), "activation bits 4"),
        (("-o", "old.safetensors"), "exists"),
    ],
)
def test_errors(pack, tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.safetensors").touch()
    assert_fails(run_qplan("export", pack, *options), 2, said)


def test_the_pack_itself_is_no_place_for_it(pack):
    before = sorted(pack.iterdir())
    assert_fails(
        run_qplan("export", pack, "-o", pack / "vae" / ".." / "a.safetensors"), 2, "lies in"
    )
    assert sorted(pack.iterdir()) == before


def test_a_folder_that_takes_no_file_is_found_before_the_work(pack, monkeypatch):
    """/proc refuses even root, whom no permission bit stops."""
    monkeypatch.setattr("planner.export.comfy.quantize", None)
    result = run_qplan("export", pack, "-o", "/proc/a.safetensors")
    assert_fails(result, 5, "/proc/a.safetensors: could not be written")
    assert ".part" not in result.stderr
