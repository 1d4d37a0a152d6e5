"""Edits of a bit grid: what a user writes, and what it means."""

import json

import pytest

from planner.regrid.edits import check_grid, edited, parse_edit, read_grid
from schemas.bit_grid import BitGrid, LayerBits, MeanBitWidths
from schemas.errors import UsageError
from schemas.json_io import dump_json

NAMES = ("blocks.3.ff.in", "blocks.3.ff.out", "blocks.13.ff.in", "blocks.3.attn.to_q")


@pytest.fixture
def grid():
    layers = {name: LayerBits(weight_bits=4, activation_bits=(2, 6)) for name in NAMES}
    target = MeanBitWidths(weight_bits=4, activation_bits=4)
    return BitGrid(target=target, timesteps=(900.0, 100.0), layers=layers)


def bits(grid, name):
    layer = grid.layers[name]
    return layer.weight_bits, layer.activation_bits


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"blocks\.3\.ff.*=8", (8, (8, 8))),
        ("blocks.3.ff=W6", (6, (2, 6))),
        ("blocks.3.ff=a3", (4, (3, 3))),
        ("blocks.3.ff=W5A7", (5, (7, 7))),
        ("blocks.3.ff=16", (16, (16, 16))),
        ("blocks.3.ff=W16", (16, (16, 16))),
    ],
)
def test_an_edit_changes_what_its_expression_finds(grid, text, expected):
    new = edited(grid, [parse_edit(text)])
    assert bits(new, "blocks.3.ff.in") == bits(new, "blocks.3.ff.out") == expected
    for name in NAMES[2:]:
        assert new.layers[name] == grid.layers[name]
    assert bits(grid, "blocks.3.ff.in") == (4, (2, 6))


def test_edits_follow_one_another(grid):
    new = edited(grid, [parse_edit("blocks=8"), parse_edit("to_q=A2")])
    assert bits(new, "blocks.3.attn.to_q") == (8, (2, 2))
    assert bits(new, "blocks.13.ff.in") == (8, (8, 8))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ff", "not PATTERN=BITS"),
        ("=8", "not PATTERN=BITS"),
        ("ff=", "not PATTERN=BITS"),
        ("ff=W", "not PATTERN=BITS"),
        ("ff=8.5", "not PATTERN=BITS"),
        ("ff=A4W4", "not PATTERN=BITS"),
        ("ff=9", "no width 9"),
        ("ff=W0", "no width 0"),
        ("ff=A15", "no width 15"),
        ("(=4", "pattern '\\('"),
        ("a{99999999999}=4", "pattern"),
        ("(" * 3000 + ")" * 3000 + "=4", "pattern"),
    ],
)
def test_what_is_no_edit(text, said):
    with pytest.raises(UsageError, match=said):
        parse_edit(text)


def test_an_expression_that_finds_nothing(grid):
    with pytest.raises(UsageError, match="finds none of the 4 layers") as error:
        edited(grid, [parse_edit("blocks.4=8")])
    assert "blocks.3.ff.in" in error.value.hint


def test_a_grid_comes_back_from_its_file(grid, tmp_path):
    file = tmp_path / "edited.json"
    file.write_bytes(dump_json(grid))
    assert read_grid(file) == grid
    for change in ({"weight_bits": 9}, {"activation_bits": [4]}, {"weight_bits": "4"}):
        content = json.loads(dump_json(grid))
        content["layers"][NAMES[0]] |= change
        file.write_text(json.dumps(content))
        with pytest.raises(UsageError, match=r"edited\.json"):
            read_grid(file)
    with pytest.raises(UsageError, match=r"absent\.json"):
        read_grid(tmp_path / "absent.json")


def test_a_grid_of_other_layers_or_that_cannot_run(grid):
    check_grid(grid, NAMES)
    with pytest.raises(UsageError, match="lacks layers: more"):
        check_grid(grid, [*NAMES, "more"])
    with pytest.raises(UsageError, match=r"names unknown layers: blocks\.3\.attn"):
        check_grid(grid, NAMES[:3])
    half = edited(grid, [parse_edit("to_q=W16"), parse_edit("to_q=A4")])
    with pytest.raises(UsageError, match="its weight stays in 16 bits"):
        check_grid(half, NAMES)
    with pytest.raises(UsageError, match="no layer to quantize"):
        check_grid(edited(grid, [parse_edit(".=16")]), NAMES)
