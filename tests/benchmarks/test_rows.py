"""The list of rows: names, pairings, and what each asks the planner for."""

import itertools

import pytest

from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.layout import block_linears
from benchmarks.quality.kinds import KINDS, block_of, kind_of
from benchmarks.quality.rows import MAIN_TARGETS, plan, recipe_rows
from planner.recipes import RECIPES, recipe_settings
from planner.target import parse_target
from runtime.bench.workload import Ranks

RANKS, SECOND = Ranks(4, 2), Ranks(32, 8)


@pytest.fixture(scope="module")
def rows():
    return plan(MAIN_TARGETS, RANKS, SECOND, diagnose=True, sweep=True)


def test_names_are_unique_and_pairings_point_to_rows_of_the_target(rows):
    names = [row.full_name for row in rows]
    assert len(names) == len(set(names))
    for row in rows:
        assert {f"{row.target}/{name}" for name in row.against} <= set(names), row.full_name
        if row.target in MAIN_TARGETS and not row.second:
            assert row.against, row.full_name
        assert row.name not in row.against


def test_every_recipe_is_compared_at_every_main_target(rows):
    for target in MAIN_TARGETS:
        assert {row.recipe for row in rows if row.target == target and row.recipe} == set(RECIPES)


def test_the_planner_takes_every_recipe_row(rows):
    for row in rows:
        assert bool(row.recipe) != bool(row.peer_settings), row.full_name
        if row.recipe:
            recipe_settings(row.recipe, parse_target(row.target), **row.overrides)


def test_each_step_of_the_chain_changes_one_thing():
    chain = {row.name: row for row in recipe_rows("W4A4", RANKS, second=False)}
    names = ["quarot", "global", "hsvd", "q-dit4sr-no-vatmp", "q-dit4sr"]
    settings = [
        recipe_settings(chain[n].recipe, parse_target("W4A4"), **chain[n].overrides).recorded()
        for n in names
    ]
    changes = [
        {key for key in before if before[key] != after[key]}
        for before, after in itertools.pairwise(settings)
    ]
    assert changes == [
        {"global_rank"},
        {"local_rank"},
        {"weight_allocation"},
        {"timestep_allocation"},
    ]
    for before, name in itertools.pairwise(names):
        assert chain[name].against[0] == before


def test_the_second_ranks_reach_the_settings_and_leave_out_what_has_no_factors():
    second = recipe_rows("W4A4", SECOND, second=True)
    assert all(row.second and row.name.endswith("@32+8") for row in second)
    assert not {"rtn", "q-dit4sr-no-hsvd"} & {row.recipe for row in second}
    full = next(row for row in second if row.recipe == "q-dit4sr")
    assert dict(full.overrides) == {"global_rank": 32, "local_rank": 8}


def test_settings_of_a_row_say_nothing_of_its_labels():
    row = recipe_rows("W4A4", RANKS, second=False)[0]
    assert set(row.settings()) == {"target", "recipe", "overrides", "sdnq"}


def test_peers_can_be_left_out(rows):
    peers = {row.name: row for row in rows if row.sdnq}
    # Each is met by ours of the same ranks.
    assert peers["sdnq-int4-svd4-hadamard"].against[0] == "q-dit4sr"
    assert peers["sdnq-int4-svd32-hadamard"].against[0] == "q-dit4sr@32+8"
    assert not any(row.peer_settings for row in plan(["W4A4"], RANKS, SECOND, peers=False))


def test_every_block_linear_has_a_kind():
    config = TransformerConfig()
    found = {kind_of(name) for name in block_linears(config)}
    assert found == set(KINDS)
    assert kind_of("transformer_blocks.3.attn2.to_v_control") == "q v, control"
    assert block_of("transformer_blocks.13.ff.net.2") == 13
    with pytest.raises(ValueError, match="proj_out"):
        kind_of("proj_out")


def test_photos_are_part_of_what_a_row_depends_on_and_nothing_where_there_are_none(rows):
    named = {row.full_name: row for row in rows}
    with_photos, without = named["W4A4/standard-photos"], named["W4A4/standard"]
    assert with_photos.settings() == without.settings() | {"photos": 32}
    assert "photos" not in without.settings()
