"""``qplan diff``: what it finds, and that it finds nothing else."""

import json
import shutil

import pytest

from artifacts.pack.reader import open_pack
from planner.inspect.pack_diff import compare, layer_changes, select_from_both
from schemas.errors import UsageError
from tests.artifacts.make_checkpoint import random_state, write_file
from tests.artifacts.make_pack import make_pack
from tests.planner.run_qplan import assert_fails, run_qplan

RANKS = ("--global-rank", 2, "--local-rank", 2)
KEPT = "transformer_blocks.0.norm1.linear"


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """Packs of one checkpoint: name -> path."""
    folder = tmp_path_factory.mktemp("packs")
    source = write_file(folder / "tiny.safetensors", random_state())
    options = {
        "w4a4": (),
        "w3a5": ("--target", "W3A5"),
        "kept": ("--keep", "blocks.0.norm1.linear$"),
        "steps": ("--steps", 5),
        "narrow": ("--factor-bits", 8),
    }
    for name, more in options.items():
        result = run_qplan("build", source, *RANKS, *more, "-o", folder / name)
        assert result.exit_code == 0, result.output
    return {name: folder / name for name in options}


def opened(packs, *names):
    return [open_pack(packs[name]) for name in names]


def test_equal_packs(packs, tmp_path):
    shutil.copytree(packs["w4a4"], tmp_path / "copy")
    found = compare(open_pack(packs["w4a4"]), open_pack(tmp_path / "copy"))
    assert found["equal"]
    assert found["settings"] == found["files"] == found["weight_bits"] == {}
    assert found["activation_bits"]["layers"] == found["error_db"]["changed"] == 0
    result = run_qplan("diff", packs["w4a4"], tmp_path / "copy", "--layer", ".")
    assert result.exit_code == 0
    assert "equal, byte for byte, by the hashes" in result.stdout
    assert "none of these layers differs" in result.stdout


def test_a_setting_that_only_one_of_the_packs_records(packs):
    found = compare(*opened(packs, "w4a4", "narrow"))
    changed = {name: pair for name, pair in found["settings"].items() if "settings." in name}
    assert changed == {"settings.factor_bits": {"before": 16, "after": 8}}


def test_another_target(packs):
    first, second = opened(packs, "w4a4", "w3a5")
    found = compare(first, second)
    assert not found["equal"]
    assert found["settings"] == {"settings.target": {"before": "W4A4", "after": "W3A5"}}
    assert found["target"]["after"] == {"weight_bits": 3, "activation_bits": 5}
    old, new = first.manifest, second.manifest
    assert found["reached"]["before"] == old.reached.model_dump()
    assert found["transformer_bytes"]["after"] == new.transformer_bytes.pack
    names = [n for n in old.layers if old.layers[n].weight_bits != new.layers[n].weight_bits]
    assert sum(found["weight_bits"].values()) == len(names) > 0
    for change, count in found["weight_bits"].items():
        before, after = map(int, change.split(" -> "))
        bits = [(old.layers[n].weight_bits, new.layers[n].weight_bits) for n in names]
        assert bits.count((before, after)) == count
    steps = len(first.bit_grid.timesteps)
    assert found["activation_bits"] == {
        "same_timesteps": True,
        "layers": len(old.layers),
        "changes": {"4 -> 5": steps * len(old.layers)},
    }
    changes = {n: new.layers[n].error_db - old.layers[n].error_db for n in old.layers}
    assert found["error_db"]["most_lost"]["layer"] == min(changes, key=changes.get)
    assert found["error_db"]["mean"]["before"] > found["error_db"]["mean"]["after"]
    assert set(found["files"]) == {"bit_grid.json", "transformer.safetensors"}

    rows = layer_changes(first, second, select_from_both(first, second, "attn2"))
    assert set(rows) == {name for name in old.layers if "attn2" in name}
    for name, row in rows.items():
        assert row["activation_bits"]["after"] == [5] * steps
        assert row["weight_bits"]["before"] == old.layers[name].weight_bits


def test_a_layer_kept_in_16_bits(packs):
    first, second = opened(packs, "w4a4", "kept")
    found = compare(first, second)
    assert found["settings"]["settings.keep"]["before"] == []
    assert any(change.endswith(" -> 16") for change in found["weight_bits"])
    assert found["error_db"]["compared"] == len(first.manifest.layers) - 1
    rows = layer_changes(first, second, [KEPT])
    assert rows[KEPT]["weight_bits"]["after"] == 16
    assert rows[KEPT]["error_db"]["after"] is None


def test_other_timesteps_are_said_and_not_compared(packs):
    found = compare(*opened(packs, "w4a4", "steps"))
    assert found["settings"] == {"sampling.steps": {"before": 40, "after": 5}}
    assert found["activation_bits"] == {"same_timesteps": False, "layers": None, "changes": {}}
    result = run_qplan("diff", packs["w4a4"], packs["steps"], "--layer", ".")
    assert "none of these layers differs" in result.stdout
    assert "sampling.steps: 40 -> 5" in result.stdout
    assert "other timesteps" in result.stdout


def test_layers_of_one_pack_alone(packs, tmp_path):
    make_pack(tmp_path / "r1", variant="r1")
    make_pack(tmp_path / "q", variant="q")
    first, second = open_pack(tmp_path / "q"), open_pack(tmp_path / "r1")
    found = compare(first, second)
    alone = set(second.manifest.layers) - set(first.manifest.layers)
    assert alone
    assert set(found["layers"]["only_after"]) == alone
    assert found["layers"]["only_before"] == []
    assert found["settings"]["network.variant"] == {"before": "q", "after": "r1"}
    assert set(layer_changes(first, second, list(alone))) == alone
    result = run_qplan("diff", tmp_path / "q", tmp_path / "r1", "--layer", ".")
    assert result.stdout.count("only after") == 1 + len(alone)


def test_the_table_shows_bits_and_errors(packs):
    result = run_qplan("diff", packs["w4a4"], packs["w3a5"], "--layer", "attn2")
    assert result.exit_code == 0
    assert f"{packs['w4a4']} -> {packs['w3a5']}" in result.stdout.replace("\n", "")
    first, second = (pack.manifest.layers for pack in opened(packs, "w4a4", "w3a5"))
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    for name in (name for name in first if "attn2" in name):
        assert f"{first[name].weight_bits} -> {second[name].weight_bits}" in lines[name]
        assert f"{first[name].error_db:g} -> {second[name].error_db:g}" in lines[name]
        assert "4 -> 5" in lines[name]


def test_json_holds_as_much(packs):
    result = run_qplan("diff", packs["w4a4"], packs["w3a5"], "--layer", "attn2", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    first, second = opened(packs, "w4a4", "w3a5")
    assert found.pop("before") == str(packs["w4a4"])
    assert found.pop("after") == str(packs["w3a5"])
    names = [name for name in first.manifest.layers if "attn2" in name]
    assert found.pop("changed_layers") == layer_changes(first, second, names)
    assert found == compare(first, second)


def test_wrong_input_is_refused(packs, tmp_path):
    first, second = packs["w4a4"], packs["w3a5"]
    assert_fails(run_qplan("diff", first, second, "--layer", "("), 2, "pattern '('")
    assert_fails(run_qplan("diff", first, second, "--layer", "atn"), 2, "'atn' finds none")
    with pytest.raises(UsageError):
        select_from_both(open_pack(first), open_pack(second), "atn")
    assert_fails(run_qplan("diff", first, tmp_path / "absent"), 3, "no such pack")
    shutil.copytree(first, tmp_path / "damaged")
    manifest = tmp_path / "damaged" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"W4A4"', '"W4A5"'))
    for pair in ((first, tmp_path / "damaged"), (tmp_path / "damaged", first)):
        assert_fails(run_qplan("diff", *pair), 3, "manifest.json")
