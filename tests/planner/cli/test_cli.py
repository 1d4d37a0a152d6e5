"""The command ``qplan``: what it prints, as tables and as JSON, and how it answers wrong input."""

import json
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from artifacts.dit4sr.family import FAMILY
from artifacts.dit4sr.layout import block_linears
from artifacts.family import Architecture
from artifacts.pack.reader import open_pack
from planner.build.network_probe import active_linears
from tests.artifacts.make_checkpoint import random_state, write_file, write_folder
from tests.artifacts.make_pack import TINY, make_pack
from tests.planner.make_base import make_base, make_embeddings
from tests.planner.run_qplan import assert_fails, leftovers, run_qplan

RANKS = ("--global-rank", 2, "--local-rank", 2)
COMMANDS = ("estimate", "build", "calibrate", "inspect", "report", "diff", "verify")
COMMANDS += ("push", "export")


def as_json(*arguments):
    result = run_qplan(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def source(tmp_path):
    return write_file(tmp_path / "tiny.safetensors", random_state())


@pytest.fixture
def pack(tmp_path):
    make_pack(tmp_path / "m.qpack", unquantized=("transformer_blocks.0.norm1.linear",))
    return tmp_path / "m.qpack"


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    result = run_qplan(command, "--help")
    assert result.exit_code == 0
    assert f"qplan {command}" in result.stdout
    assert "xample" in result.stdout


def test_help_lists_the_commands():
    result = run_qplan("--help")
    assert result.exit_code == 0
    assert all(command in result.stdout for command in COMMANDS)


def test_nothing_heavy_is_imported_for_help():
    # pydantic is missing here because typer itself imports it.
    heavy = ["torch", "numpy", "scipy", "diffusers", "transformers", "safetensors"]
    heavy += ["schemas.manifest", "artifacts.checkpoint.reader", "planner.build.build"]
    code = (
        "import sys\nfrom planner.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print([m for m in {heavy} if m in sys.modules], file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code, "build"]
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "--target" in helped.stdout
    assert helped.stderr == "[]\n"
    # The detector detects: a command that runs needs them.
    ran = subprocess.run([*command, "absent"], capture_output=True, text=True, check=True)
    assert "torch" in ran.stderr


# estimate


def test_estimate_of_the_published_network():
    paper = ("estimate", "--preset", "dit4sr", "--recipe", "q-dit4sr")
    found = as_json(*paper)
    assert found["size"]["parameters"] == 2_716_814_144
    assert len(found["layers"]) == 495
    table = run_qplan(*paper)
    assert table.exit_code == 0
    # The paper's figure, and ours; digit for digit in the tests of the accounting.
    assert "465.39" in table.stdout
    assert f"{found['pack']['total'] / 1e6:,.2f}" in table.stdout


def test_estimate_of_a_checkpoint_of_another_size(source):
    found = as_json("estimate", source, "--target", "W3.5A4", "--resolution", 64, *RANKS)
    assert set(found["layers"]) == set(active_linears(Architecture(FAMILY, TINY, "q")))
    assert found["target"] == {"weight_bits": 3.5, "activation_bits": 4}
    assert found["tokens"]["image"] == 16
    linears = [
        out_features * in_features for out_features, in_features in block_linears(TINY).values()
    ]
    assert found["size"]["linear_parameters"] == sum(linears)
    bits = sum(layer["parameters"] * layer["weight_bits"] for layer in found["layers"].values())
    assert bits <= 3.5 * sum(layer["parameters"] for layer in found["layers"].values())
    table = run_qplan("estimate", source, "--target", "W3.5A4", "--resolution", 64)
    assert "W3.5A4" in table.stdout


def test_estimate_foretells_the_size_of_the_pack(source):
    found = as_json("estimate", source, *RANKS)
    built = as_json("build", source, *RANKS)
    assert 0.9 * found["pack"]["total"] < built["transformer_bytes"]["pack"]


def test_estimate_obeys_the_bounds_it_is_given(source):
    found = as_json("estimate", source, "--min-bits", 1, "--target", "W1A4")
    assert {layer["weight_bits"] for layer in found["layers"].values()} == {1}


def test_estimate_takes_a_recipe_and_the_options_of_build():
    found = as_json("estimate", "--preset", "dit4sr", "--recipe", "quarot", "--keep", "norm1")
    assert found["settings"]["recipe"] == "quarot"
    assert found["own"]["rank"] == 0
    assert found["pack"]["global_factors"] == 0
    assert {layer["weight_bits"] for layer in found["layers"].values()} == {4}
    assert all("norm1" in name for name in found["kept"])
    table = run_qplan("estimate", "--preset", "dit4sr", "--recipe", "quarot").stdout
    assert "recipe quarot, no factors" in table
    assert "every layer has the target's weight bits" in table


@pytest.mark.parametrize("recipe", ["q-dit4sr", "q-dit4sr-residual"])
def test_estimate_measures_as_build_does(source, tmp_path, recipe):
    options = ("--recipe", recipe, "--target", "W2.7A4", *RANKS)
    found = as_json("estimate", source, *options, "--measure")
    assert found["distortion"]["from_weights"]
    as_json("build", source, *options, "-o", tmp_path / "x.qpack")
    layers = open_pack(tmp_path / "x.qpack").manifest.layers
    bits = {name: layer["weight_bits"] for name, layer in found["layers"].items()}
    assert bits == {name: record.weight_bits for name, record in layers.items()}
    assert len(set(bits.values())) > 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "either a checkpoint or --preset"),
        (("--preset", "dit4sr", "--measure"), "--measure needs a checkpoint"),
        (("--preset", "dit4sr", "--recipe", "x"), "no recipe 'x'"),
        (("--preset", "dit4sr", "--recipe", "rtn", "--target", "W3.5A4"), "W3 or W4"),
        (("--preset", "dit4sr", "--keep", "nrom1"), "finds none"),
        (("--preset", "flux"), "no preset 'flux'"),
        (("--preset", "dit4sr", "--target", "W9A4"), "W8A4"),
        (("--preset", "dit4sr", "--variant", "x"), "no variant 'x'"),
        (("--preset", "dit4sr", "--min-bits", 5, "--max-bits", 3), "5 to 3"),
        (("--preset", "dit4sr", "--global-rank", -1), "negative"),
        (("--preset", "dit4sr", "--steps", 0), "0 steps"),
        (("--preset", "dit4sr", "--resolution", 500), "496 px"),
    ],
)
def test_estimate_refuses_wrong_input(arguments, said):
    assert_fails(run_qplan("estimate", *arguments), 2, said)


def test_a_preset_is_found_in_any_case():
    assert as_json("estimate", "--preset", "DiT4SR") == as_json("estimate", "--preset", "dit4sr")


def test_estimate_names_one_source_only(source):
    assert_fails(run_qplan("estimate", source, "--preset", "dit4sr"), 2, "either")


# build


def test_build_says_what_it_made(source, tmp_path):
    result = run_qplan("build", source, *RANKS, "--target", "w3.50a4")
    assert result.exit_code == 0
    path = tmp_path / "tiny-w3.5a4.qpack"
    assert leftovers(tmp_path) == [path.name]
    manifest = open_pack(path).manifest
    assert len(result.stdout.splitlines()) == 1
    assert str(path) in result.stdout
    assert f"{manifest.transformer_bytes.pack:,}" in result.stdout
    # No terminal, so no progress bar: stderr has the recipe's note and the warning alone.
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["note", "warning"]


def test_build_as_json_holds_the_summary_and_the_warnings(source, tmp_path):
    found = as_json("build", source, *RANKS, "-o", tmp_path / "x.qpack")
    assert found["pack"] == str(tmp_path / "x.qpack")
    assert found["target"] == {"weight_bits": 4, "activation_bits": 4}
    assert found["reached"]["weight_bits"] <= 4
    assert any("--base" in warning for warning in found["warnings"])
    inspected = as_json("inspect", tmp_path / "x.qpack")
    del found["warnings"], found["notes"]
    assert found.items() <= inspected.items()


def test_the_default_output_stands_beside_the_checkpoint(tmp_path, monkeypatch):
    path = write_folder(tmp_path / "dit.4sr", random_state())
    monkeypatch.chdir(path)
    for number, name in enumerate([".", "../dit.4sr", path / "transformer" / ".."]):
        result = run_qplan("build", name, *RANKS, *(["--force"] if number else []))
        assert result.exit_code == 0, result.output
        assert leftovers(tmp_path) == ["dit.4sr-w4a4.qpack"]


def test_every_option_reaches_the_manifest(source, tmp_path):
    options = ["--variant", "r1", "--global-rank", 3, "--local-rank", 1, "--seed", 5]
    options += ["--min-bits", 3, "--max-bits", 6, "--allocator", "exact", "--keep", "norm1"]
    options += ["--keep", "to_q$", "--no-rotation-signs", "--target", "W4.2A8"]
    options += ["--recipe", "q-dit4sr-no-vatmp", "--segments", 3, "--vasmp", "--steps", 7]
    options += ["--guidance", 2.5, "--weight-statistic", "residual"]
    as_json("build", source, *options, "-o", tmp_path / "x.qpack")
    manifest = open_pack(tmp_path / "x.qpack").manifest
    assert manifest.model.variant == "r1"
    assert (manifest.sampling.steps, manifest.sampling.guidance) == (7, 2.5)
    assert manifest.recipe.name == "q-dit4sr-no-vatmp"
    assert manifest.recipe.settings == {
        "target": "W4.2A8",
        "variant": "r1",
        "global_rank": 3,
        "local_rank": 1,
        "minimum_bits": 3,
        "maximum_bits": 6,
        "weight_allocation": "vasmp",
        "weight_statistic": "residual",
        "allocator": "exact",
        "timestep_allocation": "uniform",
        "segments": 3,
        "rotation": True,
        "rotation_signs": False,
        "smoothing": False,
        "weight_scale": "gaussian",
        "activation_scale": "gaussian",
        "keep": ["norm1", "to_q$"],
        "seed": 5,
    }
    as_json("build", source, "--no-rotation", *RANKS, "-o", tmp_path / "y.qpack")
    assert open_pack(tmp_path / "y.qpack").manifest.rotation.sizes == {}


def test_build_with_a_base_and_prompts_as_text(source, tmp_path):
    base = make_base(tmp_path / "base")
    packs = {}
    for name, options in {
        "default": [],
        "positive": ["--prompt", "a cat"],
        "negative": ["--negative-prompt", ""],
    }.items():
        path = tmp_path / f"{name}.qpack"
        found = as_json("build", source, "--base", base, *options, *RANKS, "-o", path)
        assert found["warnings"] == []
        packs[name] = open_pack(path)
        assert packs[name].vae_dir is not None
        assert packs[name].scheduler_dir is not None
    default = packs["default"].prompts()
    for name, pack in packs.items():
        prompts = pack.prompts()
        for side in ("positive", "negative"):
            same = bool((prompts[f"{side}.embeds"] == default[f"{side}.embeds"]).all())
            assert same == (side != name)


def test_build_with_ready_embeddings(source, tmp_path):
    file = make_embeddings(tmp_path / "prompts" / "mine.safetensors")
    path = tmp_path / "x.qpack"
    as_json("build", source, "--prompts", file, *RANKS, "-o", path)
    found, given = open_pack(path).prompts(), load_file(file)
    assert all(bool((found[name] == given[name]).all()) for name in given)


# inspect and verify


def own_bytes(pack, layer):
    """What a layer takes on disk: no other layer's name begins with its name and a dot."""
    tensors = [item for header in pack.headers.values() for item in header.tensors.items()]
    return sum(info.nbytes for name, info in tensors if name.startswith(f"{layer}."))


def test_inspect_shows_every_layer_and_json_holds_as_much(pack):
    found = as_json("inspect", pack)
    opened = open_pack(pack)
    assert list(found["layers"]) == sorted(opened.manifest.layers)
    result = run_qplan("inspect", pack)
    assert result.exit_code == 0
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.strip()}
    for name, layer in found["layers"].items():
        bits = layer["activation_bits"]
        shown = str(bits[0]) if len(set(bits)) == 1 else f"{min(bits)}-{max(bits)}"
        block = layer["local_block"]
        assert rows[name] == [
            name,
            f"{layer['out_features']}x{layer['in_features']}",
            str(layer["weight_bits"]),
            shown,
            str(layer["global_rank"] or "-"),
            "-" if block is None else f"{block[0]}x{block[1]}",
            "-" if layer["error_db"] is None else f"{layer['error_db']:.2f}",
            f"{own_bytes(opened, name):,}",
        ]
    assert f"{found['transformer_bytes']['pack']:,}" in result.stdout
    assert f"{found['pack_bytes']:,}" in result.stdout
    assert found["kept_layers"] == 1


def test_inspect_takes_a_pattern(pack):
    found = as_json("inspect", pack, "--layer", r"blocks\.1\.ff\.")
    assert set(found["layers"]) == {f"transformer_blocks.1.ff.net.{n}" for n in ("0.proj", "2")}
    result = run_qplan("inspect", pack, "--layer", r"blocks\.1\.ff\.")
    assert "attn" not in result.stdout


def test_inspect_refuses_wrong_patterns(pack):
    assert_fails(run_qplan("inspect", pack, "--layer", "("), 2, "pattern '('")
    assert_fails(run_qplan("inspect", pack, "--layer", "atn"), 2, "'atn' finds none")


def test_verify_reads_every_byte(pack):
    found = as_json("verify", pack)
    assert found["ok"]
    on_disk = {p.relative_to(pack).as_posix(): p.stat().st_size for p in pack.rglob("*.*")}
    del on_disk["manifest.json"], on_disk["README.md"]
    assert found["files"] == on_disk
    result = run_qplan("verify", pack)
    assert f"{sum(on_disk.values()):,} bytes" in result.stdout
    file = pack / "transformer.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert_fails(run_qplan("verify", pack), 3, "transformer.safetensors")


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_pack_that_is_none(tmp_path, command):
    assert_fails(run_qplan(command, tmp_path / "absent.qpack"), 3, "no such pack")
    assert_fails(run_qplan(command, tmp_path), 3, "manifest.json")
    assert_fails(run_qplan(command, tmp_path / "absent.qpack", "--json"), 3)


def test_debug_adds_the_traceback(tmp_path):
    result = run_qplan("verify", tmp_path / "absent.qpack", "--debug")
    assert result.exit_code == 3
    assert "Traceback" in result.stderr


@pytest.mark.parametrize("arguments", [(), ("bulid",), ("build",), ("inspect", "--laeyr", "x")])
def test_a_command_line_that_makes_no_sense(arguments):
    assert run_qplan(*arguments).exit_code == 2
