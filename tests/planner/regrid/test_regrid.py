"""``qplan regrid``: a pack with another bit grid, through the real command."""

import json
import shutil

import pytest
import torch

from artifacts.pack.reader import open_pack, verify_pack
from runtime.load import network_from_pack
from tests.artifacts.make_checkpoint import random_state, write_file
from tests.planner.calibration_setup import make_setup
from tests.planner.run_qplan import assert_fails, leftovers, run_qplan

FEED_FORWARD = "blocks.1.ff"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The checkpoint, and packs of it at two targets."""
    folder = tmp_path_factory.mktemp("regrid")
    checkpoint = write_file(folder / "m.safetensors", random_state())
    packs = []
    for target in ("W4A4", "W3A8"):
        pack = folder / f"{target}.qpack"
        done = run_qplan("build", checkpoint, "--target", target, "-o", pack)
        assert done.exit_code == 0, done.stderr
        packs.append(pack)
    return checkpoint, *packs


def regrid(*arguments):
    done = run_qplan("regrid", *arguments)
    assert done.exit_code == 0, done.stderr
    return done


def files(pack):
    return open_pack(pack).manifest.files


def test_activation_bits_take_effect_without_the_checkpoint(shared, tmp_path):
    _, pack, _ = shared
    new = tmp_path / "new.qpack"
    done = regrid(pack, "--set", f"{FEED_FORWARD}=A8", "-o", new)
    before, after = open_pack(pack), verify_pack(new)
    changed = {name for name in before.bit_grid.layers if FEED_FORWARD in name}
    for name, layer in after.bit_grid.layers.items():
        old = before.bit_grid.layers[name]
        assert layer.weight_bits == old.weight_bits
        assert set(layer.activation_bits) == ({8} if name in changed else {4})
    name = "transformer.safetensors"
    assert files(new)[name] == files(pack)[name]
    assert after.manifest.reached.activation_bits > 4
    assert "warning: mean activation bits are" in done.stderr
    assert "0 of " in done.stdout
    assert after.manifest.recipe.settings["edited_grid"] is True
    # And it is another network: the sampler looks bits up in the grid.
    inputs = network_inputs(before)
    with torch.no_grad():
        results = [
            network_from_pack(p, device=torch.device("cpu"), dtype=torch.float32)(
                **inputs, activation_bits=p.bit_grid.at_step(0)
            )
            for p in (before, after)
        ]
    assert not torch.equal(*results)


def network_inputs(pack):
    generator = torch.Generator().manual_seed(0)
    config = pack.config
    latent = (1, config.in_channels, 8, 8)
    return {
        "hidden_states": torch.randn(latent, generator=generator),
        "control": torch.randn(latent, generator=generator),
        "prompt_embeds": torch.randn(1, 5, config.joint_attention_dim, generator=generator),
        "pooled": torch.randn(1, config.pooled_projection_dim, generator=generator),
        "timestep": torch.full((1,), 500.0),
    }


def test_weight_bits_give_the_pack_that_a_build_would_have_made(shared, tmp_path):
    checkpoint, first, second = shared
    new = tmp_path / "new.qpack"
    done = regrid(
        first, "--grid", second / "bit_grid.json", "--checkpoint", checkpoint, "-o", new, "--json"
    )
    verify_pack(new)
    for name in ("transformer.safetensors", "bit_grid.json"):
        assert files(new)[name] == files(second)[name] != files(first)[name]
    ours, theirs = open_pack(new).manifest, open_pack(second).manifest
    assert ours.layers == theirs.layers
    assert ours.reached == theirs.reached
    assert ours.target == theirs.target
    grids = [open_pack(pack).bit_grid.layers for pack in (first, second)]
    different = [n for n in grids[0] if grids[0][n].weight_bits != grids[1][n].weight_bits]
    assert sorted(json.loads(done.stdout)["requantized"]) == sorted(different)


def test_layers_go_to_16_bits_and_back(shared, tmp_path):
    checkpoint, pack, _ = shared
    kept, back = tmp_path / "kept.qpack", tmp_path / "back.qpack"
    regrid(pack, "--set", f"{FEED_FORWARD}=16", "--checkpoint", checkpoint, "-o", kept)
    opened = verify_pack(kept)
    name = next(n for n in opened.manifest.layers if FEED_FORWARD in n)
    assert not opened.manifest.layers[name].is_quantized
    assert torch.equal(opened.tensor(f"{name}.weight"), random_state()[f"{name}.weight"])

    original = open_pack(pack).bit_grid
    grid = tmp_path / "original.json"
    shutil.copy(pack / "bit_grid.json", grid)
    regrid(kept, "--grid", grid, "--checkpoint", checkpoint, "-o", back)
    assert open_pack(back).bit_grid == original
    assert files(back)["transformer.safetensors"] == files(pack)["transformer.safetensors"]


def test_a_pack_can_be_replaced_by_its_own_edit(shared, tmp_path):
    _, pack, _ = shared
    own = shutil.copytree(pack, tmp_path / "own.qpack")
    regrid(own, "--set", "attn=A6", "-o", own, "--force")
    assert {6, 4} <= {
        b for layer in verify_pack(own).bit_grid.layers.values() for b in layer.activation_bits
    }
    regrid(own, "--set", "attn=A4", "-o", own, "--force")
    assert verify_pack(own).bit_grid == open_pack(pack).bit_grid


def test_a_whole_pack_keeps_its_other_files(tmp_path):
    setup = make_setup(tmp_path)
    pack, new = tmp_path / "a.qpack", tmp_path / "b.qpack"
    done = run_qplan("build", setup.checkpoint, "--base", setup.base, "-o", pack)
    assert done.exit_code == 0, done.stderr
    regrid(pack, "--set", "ff=W5", "--checkpoint", setup.checkpoint, "-o", new)
    verify_pack(new)
    own = {"transformer.safetensors", "bit_grid.json"}
    assert set(files(new)) == set(files(pack)) > own
    for name in set(files(pack)) - own:
        assert files(new)[name] == files(pack)[name]


def test_a_recipe_that_smooths_needs_its_calibration(tmp_path):
    setup = make_setup(tmp_path)
    calibration, pack = tmp_path / "c.json", tmp_path / "a.qpack"
    other, higher = tmp_path / "b.qpack", tmp_path / "higher.qpack"
    common = ["--recipe", "svdquant", "--base", setup.base]
    done = run_qplan(
        "calibrate", setup.checkpoint, "--calib", setup.images, *common, "-o", calibration
    )
    assert done.exit_code == 0, done.stderr
    for out, target in ((pack, "W4A4"), (higher, "W6A4")):
        done = run_qplan(
            "build",
            setup.checkpoint,
            *common,
            "--target",
            target,
            "--calibration",
            calibration,
            "-o",
            out,
        )
        assert done.exit_code == 0, done.stderr
    words = [pack, "--set", ".=W6", "--checkpoint", setup.checkpoint, "-o", other]
    assert_fails(run_qplan("regrid", *words), 2, "smooths", "--calibration")
    regrid(*words, "--calibration", calibration)
    assert files(other)["transformer.safetensors"] == files(higher)["transformer.safetensors"]


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        ((), 2, ("nothing to change",)),
        (("--set", "ff=W5"), 2, ("weight bits of", "--checkpoint")),
        (("--set", "nowhere=8"), 2, ("finds none",)),
        (("--set", "ff=W16", "--set", "ff=A4"), 2, ("stays in 16 bits",)),
        (("--grid", "absent.json"), 2, ("absent.json",)),
        (("--set", "ff=W5", "--checkpoint", "absent"), 3, ("absent",)),
    ],
)
def test_what_cannot_be_done_leaves_nothing(shared, tmp_path, words, code, parts):
    _, pack, _ = shared
    assert_fails(run_qplan("regrid", pack, *words, "-o", tmp_path / "new.qpack"), code, *parts)
    assert leftovers(tmp_path) == []


def test_a_grid_that_was_edited_in_its_place_makes_a_pack(shared, tmp_path):
    _, pack, _ = shared
    own = shutil.copytree(pack, tmp_path / "own.qpack")
    content = json.loads((own / "bit_grid.json").read_text())
    name = next(iter(content["layers"]))
    content["layers"][name]["activation_bits"][0] = 7
    (own / "bit_grid.json").write_text(json.dumps(content))
    words = ["--grid", own / "bit_grid.json", "-o", tmp_path / "new.qpack"]
    regrid(own, *words)
    grid = verify_pack(tmp_path / "new.qpack").bit_grid
    assert grid.layers[name].activation_bits[0] == 7
    assert_fails(run_qplan("regrid", own, "--set", "ff=A8", "-o", tmp_path / "b.qpack"), 3, "grid")


def test_another_checkpoint_is_noticed(shared, tmp_path):
    _, pack, _ = shared
    other = write_file(tmp_path / "other.safetensors", random_state(seed=1))
    words = ["--set", "ff=W5", "--checkpoint", other, "-o", tmp_path / "new.qpack"]
    assert_fails(run_qplan("regrid", pack, *words), 2, "made from another checkpoint")


def test_a_damaged_pack_is_not_sealed_again(shared, tmp_path):
    _, pack, _ = shared
    own = shutil.copytree(pack, tmp_path / "own.qpack")
    file = own / "transformer.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    words = ["--set", "ff=A8", "-o", tmp_path / "new.qpack"]
    assert_fails(run_qplan("regrid", own, *words), 3, "transformer.safetensors")


def test_an_output_that_exists_stays(shared, tmp_path):
    _, pack, other = shared
    assert_fails(run_qplan("regrid", pack, "--set", "ff=A8", "-o", other), 2, "exists")
    assert open_pack(other).manifest.target.weight_bits == 3
