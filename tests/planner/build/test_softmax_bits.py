"""``--softmax-bits``: from the command line into the manifest, and nowhere else."""

import json

import pytest

from artifacts.pack.reader import open_pack
from tests.artifacts.make_checkpoint import random_state, write_file
from tests.planner.run_qplan import assert_fails, run_qplan

RANKS = ("--global-rank", 2, "--local-rank", 2)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_file(tmp_path_factory.mktemp("source") / "tiny.safetensors", random_state())


def build(source, output, *options):
    result = run_qplan("build", source, *RANKS, "-o", output, *options)
    assert result.exit_code == 0, result.output
    return output


@pytest.fixture(scope="module")
def packs(source, tmp_path_factory):
    """With 8 bits, and without the option."""
    folder = tmp_path_factory.mktemp("packs")
    return [
        build(source, folder / "8.qpack", "--softmax-bits", 8),
        build(source, folder / "plain.qpack"),
    ]


def files(pack):
    return {p.relative_to(pack): p.read_bytes() for p in pack.rglob("*") if p.is_file()}


def test_16_bits_are_what_a_build_without_the_option_gives(source, packs, tmp_path):
    explicit = files(build(source, tmp_path / "16.qpack", "--softmax-bits", 16))
    assert explicit == files(packs[1])
    assert not any(b"softmax" in content for content in explicit.values())


def test_8_bits_change_the_manifest_and_the_model_card_alone(packs):
    eight, plain = map(files, packs)
    changed = {path.name for path in eight if eight[path] != plain[path]}
    assert changed == {"manifest.json", "README.md"}
    manifest = open_pack(packs[0]).manifest
    assert manifest.quantizer.softmax_bits == 8
    assert manifest.recipe.settings["softmax_bits"] == 8
    assert b"attention probabilities at 8 bits" in (packs[0] / "README.md").read_bytes()


def test_what_inspect_verify_and_diff_say(packs):
    eight, plain = packs
    assert "attention probabilities: 8 bits" in run_qplan("inspect", eight).stdout
    assert "attention probabilities" not in run_qplan("inspect", plain).stdout
    assert run_qplan("verify", eight).exit_code == 0
    for pack, bits in ((eight, 8), (plain, 16)):
        facts = json.loads(run_qplan("inspect", pack, "--json").stdout)
        assert facts["softmax_bits"] == bits
    found = json.loads(run_qplan("diff", plain, eight, "--json").stdout)
    assert found["settings"] == {"settings.softmax_bits": {"before": 16, "after": 8}}


def test_another_grid_keeps_them(packs, tmp_path):
    regridded = tmp_path / "again.qpack"
    result = run_qplan("regrid", packs[0], "--set", "blocks.0.*=A8", "-o", regridded)
    assert result.exit_code == 0, result.output
    assert open_pack(regridded).manifest.quantizer.softmax_bits == 8


def test_the_estimate_counts_them():
    def own(*options):
        paper = ("--recipe", "q-dit4sr")
        arguments = ("estimate", "--preset", "dit4sr", *paper, *options)
        return json.loads(run_qplan(*arguments, "--json").stdout)["own"]

    plain, eight = own(), own("--softmax-bits", 8)
    assert eight["attention_operations"] == 0.75 * plain["attention_operations"]
    assert eight["true_operations"] == plain["true_operations"]
    assert f"{eight['total_operations'] / 1e9:,.0f}" == "13,246"
    text = run_qplan("estimate", "--preset", "dit4sr", "--softmax-bits", 8).stdout
    assert "softmax 8 bits" in text


@pytest.mark.parametrize("bits", [0, 4, 7, 32])
def test_other_bits_are_refused(source, tmp_path, bits):
    result = run_qplan("build", source, "-o", tmp_path / "a.qpack", "--softmax-bits", bits)
    assert_fails(result, 2, f"softmax at {bits} bits")
