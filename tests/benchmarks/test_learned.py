"""The benchmark of learned packs: its rows on the bundled networks, as small as they come."""

import json

from benchmarks.learned import MODEL, main, parse, table
from planner.learned.plan import LEARNED_RECIPES

SMALL = ("--crops", "1", "--block-steps", "0", "--whole-steps", "1", "--targets", "W4A4")


def content(method, seed, values):
    return {
        "row": {"target": "W4A4", "method": method, "seed": seed},
        "values": {"latent_db": values},
        "built_seconds": 60.0,
    }


def test_seeds_of_a_method_are_one_row():
    lines = table([content("a", 0, [[1.0], [3.0]]), content("a", 1, [[2.0], [4.0]])])
    assert len(lines) == 3
    assert lines[2].startswith("| W4A4 | a | 2.50 ")
    assert "2.00, 3.00 | 1.0 |" in lines[2]


def test_an_unknown_method_is_refused_before_anything_is_loaded(capsys):
    assert main(["--methods", "magic"]) == 2
    assert "magic" in capsys.readouterr().err


def test_a_method_learns_from_a_recipes_pack_and_is_read_the_second_time(tmp_path, capsys):
    arguments = [*SMALL, "--methods", "efficientdm", "--work", str(tmp_path / "work")]
    assert parse(arguments).model == MODEL
    assert LEARNED_RECIPES["efficientdm"].base == "quarot"
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    first = capsys.readouterr().out
    rows = json.loads((tmp_path / "out" / "learned.json").read_text())["rows"]
    assert [row["row"]["method"] for row in rows] == ["efficientdm"]
    assert rows[0]["after_db"] != rows[0]["before_db"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == first
