"""The benchmark of learned packs: its rows on the bundled networks, as small as they come."""

import json

import pytest
import torch

from benchmarks.learned.__main__ import COMPARED, MODEL, main, parse
from benchmarks.learned.report import read_rows, table, to_json
from benchmarks.learned.rows import budgeted
from benchmarks.learned.structure import Structure, changes
from planner.learned.recipes import LEARNED_RECIPES
from planner.recipes import RECIPES

SMALL = ("--crops", "1", "--block-steps", "0", "--whole-steps", "1", "--targets", "W4A4")
SMALL += ("--pictures", "2")


def content(method, seed, values):
    return {
        "row": {"target": "W4A4", "method": method, "seed": seed},
        "values": {"latent_db": values},
        "built_seconds": 60.0,
        "images": 32,
    }


def test_seeds_of_a_method_are_one_row():
    lines = table([content("a", 0, [[1.0], [3.0]]), content("a", 1, [[2.0], [4.0]])])
    assert len(lines) == 3
    assert lines[2].startswith("| W4A4 | a | 2.50 ")
    assert "2.00, 3.00 | 32 | 1.0 |" in lines[2]


def test_an_unknown_method_is_refused_before_anything_is_loaded(capsys):
    assert main(["--methods", "magic"]) == 2
    assert "magic" in capsys.readouterr().err


def test_a_method_learns_from_a_recipes_pack_and_is_read_the_second_time(tmp_path, capsys):
    arguments = [*SMALL, "--methods", "ptq4dit,efficientdm", "--work", str(tmp_path / "work")]
    assert parse(arguments).model == MODEL
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    first = capsys.readouterr().out
    rows = json.loads((tmp_path / "out" / "learned.json").read_text())["rows"]
    assert [row["row"]["method"] for row in rows] == ["ptq4dit", "efficientdm"]
    assert [row["simulated"] for row in rows] == [None, "timestep-bounds"]
    assert all(row["images"] == 2 for row in rows)
    for row in rows:  # at 4 bits pictures change, and not beyond recognition
        assert 0 < abs(row["values"]["fsim_change"][0][0]) < 0.2
    assert main([*arguments, "--finished"]) == 0
    assert capsys.readouterr().out == first
    assert main([*SMALL, "--methods", "q-dit", *arguments[-2:], "--finished"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("method", LEARNED_RECIPES)
def test_a_budget_is_the_same_for_every_method_that_learns(method):
    plan = budgeted(LEARNED_RECIPES[method].learning(), 96, 8)
    of_layer = {"none": 0, "forward": 1, "reversed": 8}[plan.order]
    blocks = of_layer * plan.block_steps
    assert blocks + plan.whole_steps == (96 if plan.parts else 0)


def test_changes_are_of_the_same_case_and_noise():
    assert changes([[0.5, 0.75]], [[0.25, 1.0]]) == [[0.25, -0.25]]


def test_structure_of_the_truth_itself_is_whole_and_falls_with_blur():
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(picture, 5, 1, 2)
    found = [Structure().to_truth(p, picture)["truth_fsim"] for p in (picture, blurred)]
    assert found[0] == pytest.approx(1)
    assert found[1] < 0.9


def test_all_are_methods():
    assert {*COMPARED} <= {*RECIPES, *LEARNED_RECIPES}


def test_rows_that_were_sampled_otherwise_are_not_read(tmp_path):
    path = tmp_path / "learned.json"
    assert read_rows(path, {"steps": 8}) == []
    rows = [content("a", 0, [[1.0]]), content("a", 1, [[1.0]])]
    path.write_text(to_json(rows, {"steps": 8, "pictures": False}))
    assert read_rows(path, {"steps": 8, "pictures": True}) == rows[:1]
    assert read_rows(path, {"steps": 4}) == []
