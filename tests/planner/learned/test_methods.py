"""Every method learns on a tiny network of several steps, and interrupted it ends the same."""

import pytest
import torch

import planner.learned.learn as learn_module
from artifacts.checkpoint.reader import open_checkpoint
from artifacts.pack.reader import open_pack
from planner.build.base_model import find_base_model
from planner.build.build import build
from planner.build.work_folder import WorkFolder
from planner.calibrate.settings import CalibrationSettings
from planner.learned.recipes import LEARNED_RECIPES
from planner.learned.session import LearningRun, learn
from planner.recipes import recipe_settings
from planner.target import parse_target
from schemas.errors import UsageError
from tests.planner.calibration_setup import make_setup

METHODS = list(LEARNED_RECIPES)
QUICK = {"block_steps": 5, "whole_steps": 12, "batch": 2, "rate": 5e-3}


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    return make_setup(tmp_path_factory.mktemp("inputs"), images=4)


@pytest.fixture(scope="module")
def pack_of(tmp_path_factory, setup):
    """Method -> the pack that it starts from."""
    folder, made = tmp_path_factory.mktemp("packs"), {}
    checkpoint = open_checkpoint(setup.checkpoint)
    base = find_base_model(checkpoint, setup.base)

    def pack(method, **more):
        recipe = LEARNED_RECIPES[method]
        base_recipe, overrides = recipe.base, {**recipe.base_settings, **more}
        if base_recipe == "standard":  # as far as it learns; a probe would take longer than all
            base_recipe, overrides = "quarot", {"global_rank": 4, "factor_bits": 8, **overrides}
        if base_recipe == "svdquant":  # its own smoothing needs a calibration; learned ones do not
            overrides = {"smoothing": "none", "global_rank": 4, **overrides}
        key = (base_recipe, *overrides.items())
        if key not in made:
            settings = recipe_settings(base_recipe, parse_target("W3A4"), **overrides)
            made[key] = folder / f"{len(made)}.qpack"
            build(checkpoint, made[key], settings, base)
        return open_pack(made[key])

    return pack


def quick(method):
    plan = LEARNED_RECIPES[method].learning()
    return LEARNED_RECIPES[method].learning(
        **{k: v for k, v in QUICK.items() if k != "whole_steps" or plan.whole_steps},
        **({"groups": 3} if plan.groups else {}),
    )


def run_of(setup, work=None):
    return LearningRun(setup.images, CalibrationSettings(), torch.device("cpu"), work)


@pytest.mark.parametrize("method", METHODS)
def test_it_learns(setup, pack_of, method):
    checkpoint = open_checkpoint(setup.checkpoint)
    made = learn(pack_of(method), checkpoint, method, quick(method), run_of(setup))
    assert made.learned.after_db > made.learned.before_db
    assert made.calibration.images == 4
    # What is sampled afterwards decides, as does what was judged, with weights on their levels.
    assert not any(layer.training for layer in made.student.layers)


@pytest.mark.parametrize("method", ["q-diffusion", "q-dit"])
def test_interrupted_it_ends_the_same(setup, pack_of, method, tmp_path, monkeypatch):
    checkpoint, pack, plan = open_checkpoint(setup.checkpoint), pack_of(method), quick(method)
    whole = learn(pack, checkpoint, method, plan, run_of(setup))

    monkeypatch.setattr(learn_module, "SAVE_EVERY", 3)
    name = "_error" if method == "q-dit" else "_loss"
    real, count = getattr(learn_module.Learner, name), 0

    def stops(self, *arguments):
        nonlocal count
        count += 1
        if count == 12:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(learn_module.Learner, name, stops)
    work = WorkFolder(tmp_path / "work")
    with pytest.raises(KeyboardInterrupt):
        learn(pack, checkpoint, method, plan, run_of(setup, work))
    found = learn(pack, checkpoint, method, plan, run_of(setup, work))
    assert found.learned == whole.learned
    for layer, other in zip(found.student.layers, whole.student.layers, strict=True):
        assert layer.group == other.group
        assert torch.equal(layer.quantized(), other.quantized())
        for one, two in zip(layer.trainables(), other.trainables(), strict=True):
            assert torch.equal(one.tensor, two.tensor)


def test_a_pack_with_factors_cannot_be_balanced(setup, pack_of):
    pack = pack_of("ptq4dit", global_rank=2)
    with pytest.raises(UsageError, match="factors"):
        learn(pack, open_checkpoint(setup.checkpoint), "ptq4dit", quick("ptq4dit"), run_of(setup))
