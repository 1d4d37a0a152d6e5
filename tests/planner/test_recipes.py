"""Recipes: what each stands for, seen in the packs it makes."""

import pytest

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.dit4sr.family import FAMILY
from artifacts.family import Architecture
from artifacts.pack.reader import verify_pack
from planner.build.base_model import BaseModel
from planner.build.build import build
from planner.recipes import RECIPES, recipe_settings
from planner.settings import BuildSettings
from planner.target import parse_target
from schemas.errors import UsageError
from tests.artifacts.make_checkpoint import random_state, write_folder
from tests.artifacts.make_pack import TINY

SAMPLING = Architecture(FAMILY, TINY, "q").sampling
W4A4 = parse_target("W4A4")
WEIGHTS_ALONE = [name for name in RECIPES if name not in ("svdquant", "standard")]
"""Recipes that read nothing but weights; the others run the network first."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return open_checkpoint(write_folder(tmp_path_factory.mktemp("source") / "m", random_state()))


@pytest.fixture(scope="module")
def packs(tmp_path_factory, checkpoint):
    folder = tmp_path_factory.mktemp("packs")
    for name in WEIGHTS_ALONE:
        given = recipe_settings(name, W4A4)
        ranks = {r: 2 for r in ("global_rank", "local_rank") if getattr(given, r)}
        build(
            checkpoint,
            folder / name,
            recipe_settings(name, W4A4, **ranks),
            BaseModel(SAMPLING),
        )
    return {name: verify_pack(folder / name) for name in WEIGHTS_ALONE}


def choice(name, field):
    """What a recipe says of a field of the settings, or their default."""
    return RECIPES[name].choices.get(field, getattr(BuildSettings(W4A4), field))


def test_the_papers_methods_and_ablations_are_there():
    ablations = {f"q-dit4sr-no-{part}" for part in ("signs", "hsvd", "vasmp", "vatmp")}
    assert set(RECIPES) >= {"rtn", "quarot", "svdquant", "q-dit4sr"} | ablations


def test_the_pack_says_which_recipe_it_follows(packs):
    for name, pack in packs.items():
        assert pack.manifest.recipe.name == name
        assert f"recipe `{name}`" in (pack.path / "README.md").read_text()


def test_packs_are_what_their_recipes_say(packs):
    for name, pack in packs.items():
        manifest = pack.manifest
        rotates = choice(name, "rotation")
        assert manifest.rotation.enabled == rotates
        assert manifest.rotation.signs == (rotates and choice(name, "rotation_signs"))
        records = manifest.layers.values()
        factors = choice(name, "global_rank") or choice(name, "local_rank")
        assert any(r.global_rank or r.local_block for r in records) == bool(factors)
        uniform = choice(name, "weight_allocation") == "uniform"
        assert ({r.weight_bits for r in records} == {4}) == uniform
        quantizer = manifest.quantizer
        assert quantizer.weight_scale == choice(name, "weight_scale")
        assert quantizer.activation_scale == choice(name, "activation_scale")


def test_the_papers_recipes_differ_where_they_should(packs):
    assert not packs["rtn"].manifest.rotation.enabled
    assert packs["rtn"].manifest.quantizer.weight_scale == "absmax"
    assert packs["quarot"].manifest.rotation.signs
    assert not packs["q-dit4sr-no-signs"].manifest.rotation.signs
    assert all(not r.global_rank for r in packs["q-dit4sr-no-hsvd"].manifest.layers.values())


def test_who_wants_a_calibration():
    for name in RECIPES:
        by_timestep = choice(name, "timestep_allocation") in ("auto", "vatmp")
        expected = by_timestep or choice(name, "smoothing") == "search"
        assert recipe_settings(name, W4A4).uses_calibration == expected


def test_standard_goes_by_the_network_and_says_what_it_lacks(checkpoint, tmp_path):
    with pytest.raises(UsageError, match="decides bits by sensitivity") as error:
        build(
            checkpoint, tmp_path / "a.qpack", recipe_settings("standard", W4A4), BaseModel(SAMPLING)
        )
    assert "--sensitivity" in error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_svdquant_smooths_instead_of_rotating_and_says_what_it_lacks(checkpoint, tmp_path):
    chosen = recipe_settings("svdquant", W4A4)
    assert chosen.smoothing == "search"
    assert not chosen.rotation
    assert (chosen.global_rank, chosen.local_rank) == (32, 0)
    with pytest.raises(UsageError, match="svdquant smooths") as error:
        build(checkpoint, tmp_path / "a.qpack", chosen, BaseModel(SAMPLING))
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


def test_a_setting_that_there_is_not_is_named():
    with pytest.raises(UsageError, match="no setting 'global_rnk'") as caught:
        recipe_settings("standard", W4A4, global_rnk=4)
    assert "global_rank" in caught.value.hint
