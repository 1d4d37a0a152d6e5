"""Settings: every choice checked, and recorded as the manifest can hold it."""

import pytest

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.dit4sr.family import FAMILY
from planner.settings import BuildSettings, check_bounds, settings_of
from planner.target import Target, parse_target
from schemas.errors import PackError, UsageError
from schemas.manifest import RecipeRecord
from tests.artifacts.make_checkpoint import random_state, write_file

NAMES = ["transformer_blocks.0.attn.to_q", "transformer_blocks.0.ff.net.2", "x.norm1.linear"]


def settings(**fields):
    return BuildSettings(parse_target("W3.5A4"), **fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"global_rank": -1}, "negative"),
        ({"local_rank": -1}, "negative"),
        ({"minimum_bits": 0}, "0 to 8"),
        ({"maximum_bits": 9}, "2 to 9"),
        ({"minimum_bits": 5, "maximum_bits": 3}, "5 to 3"),
        ({"allocator": "best"}, "'best'"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**63}, "seed 9223372036854775808"),
        ({"keep": ("(",)}, "pattern"),
        ({"weight_allocation": "x"}, "weight allocation 'x'"),
        ({"weight_allocation": "uniform"}, "3.5 weight bits"),
        ({"weight_statistic": "x"}, "weight statistic 'x'"),
        ({"timestep_allocation": "x"}, "timestep allocation 'x'"),
        ({"weight_scale": "x"}, "scale rule of weights 'x'"),
        ({"activation_scale": "max"}, "scale rule of activations 'max'"),
        ({"segments": 0}, "0 segments"),
        ({"smoothing": "search"}, "exclude one another"),
        ({"smoothing": "much"}, "no smoothing 'much'"),
        ({"smoothing": True}, "no smoothing True"),
        ({"effort": "heroic"}, "effort 'heroic'"),
        ({"softmax_bits": 4}, "softmax at 4 bits"),
        ({"softmax_bits": 32}, "softmax at 32 bits"),
    ],
)
def test_a_choice_out_of_range_is_refused(fields, said):
    with pytest.raises(UsageError, match=said.replace("(", r"\(")):
        settings(**fields)


def test_every_choice_at_its_limit_is_taken():
    for bounds in ((1, 1), (1, 8), (8, 8)):
        check_bounds(*bounds)
    assert settings(global_rank=0, local_rank=0, seed=2**63 - 1).seed == 2**63 - 1


def test_patterns_find_layers():
    assert settings().kept_layers(NAMES) == frozenset()
    assert settings(keep=("norm1", r"to_q$")).kept_layers(NAMES) == {NAMES[0], NAMES[2]}


def test_a_pattern_that_finds_nothing_is_refused_even_beside_one_that_does():
    with pytest.raises(UsageError, match="'nrom1' finds none of the 3 layers") as error:
        settings(keep=("to_q", "nrom1")).kept_layers(NAMES)
    assert NAMES[0] in error.value.hint


def test_what_is_recorded_fits_the_manifest_and_names_every_setting():
    later = {"softmax_bits": 8, "factor_bits": 8, "budget": "bit-operations", "modulation": "both"}
    later |= {"effort": "thorough", "weight_rounding": "gptq", "factor_fit": "outputs"}
    chosen = settings(keep=("a", "b"), weight_allocation="sensitivity", **later)
    recorded = RecipeRecord(name="q-dit4sr", settings=chosen.recorded()).settings
    assert set(recorded) == set(BuildSettings.__dataclass_fields__) - {"recipe"}
    assert (recorded["target"], recorded["keep"]) == ("W3.5A4", ["a", "b"])
    assert recorded["softmax_bits"] == 8


@pytest.mark.parametrize("name", ["softmax_bits", "factor_bits"])
def test_settings_that_came_later_are_recorded_where_they_change_anything(name):
    for bits in (8, 16):
        chosen = settings(**{name: bits}, variant="q")
        recorded = chosen.recorded()
        assert (name in recorded) == (bits == 8)
        assert settings_of(RecipeRecord(name="q-dit4sr", settings=recorded), FAMILY) == chosen
    recorded[name] = 4
    with pytest.raises(PackError, match="4 bits"):
        settings_of(RecipeRecord(name="q-dit4sr", settings=recorded), FAMILY)


def test_effort_is_recorded_where_it_is_not_the_usual():
    for effort in ("fast", "normal", "thorough"):
        chosen = settings(effort=effort, variant="q")
        recorded = chosen.recorded()
        assert ("effort" in recorded) == (effort != "normal")
        assert settings_of(RecipeRecord(name="q-dit4sr", settings=recorded), FAMILY) == chosen


@pytest.mark.parametrize(
    ("target", "choice", "wanted"),
    [
        ("W4A4", "auto", True),
        ("W4A5.9", "auto", True),
        ("W4A6", "auto", False),
        ("W4A16", "auto", False),
        ("W4A4", "uniform", False),
        ("W4A8", "vatmp", True),
        ("W4A16", "vatmp", False),
    ],
)
def test_vatmp_is_off_from_six_bits_on_unless_asked_for(target, choice, wanted):
    chosen = BuildSettings(parse_target(target), timestep_allocation=choice)
    assert chosen.wants_vatmp == chosen.uses_calibration == wanted
    smoothing = BuildSettings(parse_target(target), smoothing="search", rotation=False)
    assert smoothing.uses_calibration


def test_the_checkpoint_decides_on_variants(tmp_path):
    checkpoint = open_checkpoint(write_file(tmp_path / "m.safetensors", random_state()))
    assert BuildSettings(Target(4, 4)).resolved(checkpoint).variant == "q"
    assert BuildSettings(Target(4, 4), variant="r1").resolved(checkpoint).variant == "r1"
    with pytest.raises(UsageError, match="no variant 'z' of DiT4SR"):
        BuildSettings(Target(4, 4), variant="z").resolved(checkpoint)
    named = open_checkpoint(write_file(tmp_path / "dit4sr_r1.safetensors", random_state()))
    assert BuildSettings(Target(4, 4)).resolved(named).variant == "r1"
    assert BuildSettings(Target(4, 4), variant="f").resolved(named).variant == "f"


def test_modulation_is_recorded_where_it_is_not_weights():
    for choice in ("weights", "table", "both"):
        chosen = settings(modulation=choice, variant="q")
        recorded = chosen.recorded()
        assert ("modulation" in recorded) == (choice != "weights")
        assert settings_of(RecipeRecord(name="q-dit4sr", settings=recorded), FAMILY) == chosen
    with pytest.raises(UsageError, match="modulation"):
        settings(modulation="curve")


def test_patterns_may_find_tabled_layers():
    chosen = settings(keep=("norm1", r"to_q$"))
    assert chosen.kept_layers(NAMES, NAMES[2:]) == {NAMES[0]}
    with pytest.raises(UsageError, match="nothing is left"):
        settings(keep=("transformer",)).kept_layers(NAMES, NAMES[2:])


@pytest.mark.parametrize(
    ("smoothing", "recorded"), [("none", False), ("search", True), ("balance", "balance")]
)
def test_smoothing_is_recorded_as_older_packs_have_it(smoothing, recorded):
    chosen = settings(smoothing=smoothing, rotation=smoothing != "search", variant="q")
    assert chosen.recorded()["smoothing"] == recorded
    found = settings_of(RecipeRecord(name=chosen.recipe, settings=chosen.recorded()), FAMILY)
    assert found == chosen


def test_what_goes_by_second_moments():
    assert not settings().uses_moments
    for fields in (
        {"weight_rounding": "gptq"},
        {"factor_fit": "outputs"},
        {"smoothing": "balance"},
    ):
        assert settings(**fields).uses_moments
    assert not settings(factor_fit="outputs", global_rank=0).uses_moments  # nothing to fit
    balanced = settings(smoothing="balance")
    assert not balanced.rounds_by_moments
    assert not balanced.uses_calibration or balanced.wants_vatmp
    assert not balanced.pays_for_vectors  # VaSMP keeps to the codes, as the paper has it
    assert settings(smoothing="balance", weight_allocation="sensitivity").pays_for_vectors
