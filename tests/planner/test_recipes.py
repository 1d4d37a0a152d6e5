"""Recipes: what each stands for, seen in the packs it makes."""

import pytest

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.dit4sr.family import FAMILY
from artifacts.pack.reader import verify_pack
from planner.build.base_model import BaseModel
from planner.build.build import build
from planner.recipes import RECIPES, recipe_settings
from planner.target import parse_target
from schemas.errors import UsageError
from tests.artifacts.make_checkpoint import random_state, write_folder

W4A4 = parse_target("W4A4")
DATA_FREE = [name for name in RECIPES if name != "svdquant"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return open_checkpoint(write_folder(tmp_path_factory.mktemp("source") / "m", random_state()))


@pytest.fixture(scope="module")
def packs(tmp_path_factory, checkpoint):
    folder = tmp_path_factory.mktemp("packs")
    for name in DATA_FREE:
        given = recipe_settings(name, W4A4)
        ranks = {r: 2 for r in ("global_rank", "local_rank") if getattr(given, r)}
        build(
            checkpoint,
            folder / name,
            recipe_settings(name, W4A4, **ranks),
            BaseModel(FAMILY.sampling),
        )
    return {name: verify_pack(folder / name) for name in DATA_FREE}


def test_methods_and_ablations_are_all_there():
    ablations = {f"q-dit4sr-no-{part}" for part in ("signs", "hsvd", "vasmp", "vatmp")}
    ours = {"q-dit4sr-residual"}
    assert set(RECIPES) == {"rtn", "quarot", "svdquant", "q-dit4sr"} | ours | ablations


def test_the_pack_says_which_recipe_it_follows(packs):
    for name, pack in packs.items():
        assert pack.manifest.recipe.name == name
        assert f"recipe `{name}`" in (pack.path / "README.md").read_text()


def test_who_rotates(packs):
    rotating = {name for name, pack in packs.items() if pack.manifest.rotation.enabled}
    assert set(DATA_FREE) - rotating == {"rtn"}
    signed = {name for name, pack in packs.items() if pack.manifest.rotation.signs}
    assert rotating - signed == {"q-dit4sr-no-signs"}


def test_who_has_factors(packs):
    without = {
        name
        for name, pack in packs.items()
        if not any(r.global_rank or r.local_block for r in pack.manifest.layers.values())
    }
    assert without == {"rtn", "quarot", "q-dit4sr-no-hsvd"}


def test_who_gives_all_layers_the_same_bits(packs):
    uniform = {
        name
        for name, pack in packs.items()
        if {r.weight_bits for r in pack.manifest.layers.values()} == {4}
    }
    assert uniform == {"rtn", "quarot", "q-dit4sr-no-vasmp"}


def test_who_scales_by_the_largest_magnitude(packs):
    for name, pack in packs.items():
        rule = "absmax" if name == "rtn" else "gaussian"
        quantizer = pack.manifest.quantizer
        assert (quantizer.weight_scale, quantizer.activation_scale) == (rule, rule)


def test_who_wants_a_calibration():
    using = {name for name in RECIPES if recipe_settings(name, W4A4).uses_calibration}
    assert using == {
        "q-dit4sr",
        "q-dit4sr-residual",
        "q-dit4sr-no-signs",
        "q-dit4sr-no-hsvd",
        "q-dit4sr-no-vasmp",
        "svdquant",
    }


def test_svdquant_smooths_instead_of_rotating_and_says_what_it_lacks(checkpoint, tmp_path):
    chosen = recipe_settings("svdquant", W4A4)
    assert chosen.smoothing
    assert not chosen.rotation
    assert (chosen.global_rank, chosen.local_rank) == (32, 0)
    with pytest.raises(UsageError, match="svdquant smooths") as error:
        build(checkpoint, tmp_path / "a.qpack", chosen, BaseModel(FAMILY.sampling))
    assert "--calib" in error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_what_the_user_chooses_goes_before_the_recipe():
    chosen = recipe_settings("quarot", W4A4, global_rank=4, seed=9)
    assert (chosen.global_rank, chosen.local_rank, chosen.seed) == (4, 0, 9)
    assert chosen.recipe == "quarot"


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="'gptq'") as error:
        recipe_settings("gptq", W4A4)
    assert all(name in error.value.hint for name in RECIPES)
