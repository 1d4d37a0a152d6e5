import pytest

from schemas.bit_grid import BitGrid
from schemas.errors import PackError
from schemas.json_io import dump_json, read_json_strict, validate


def content(**changes):
    grid = {
        "format_version": 1,
        "target": {"weight_bits": 4, "activation_bits": 4.5},
        "timesteps": [900, 500.5, 1],
        "layers": {
            "b": {"weight_bits": 3, "activation_bits": [5, 4, 16]},
            "a": {"weight_bits": 16, "activation_bits": [1, 8, 2]},
        },
    }
    return grid | changes


def layer(weight_bits=4, activation_bits=(4, 4, 4)):
    bits = {"weight_bits": weight_bits, "activation_bits": list(activation_bits)}
    return {"layers": {"a.b": bits}}


def test_written_sorted_with_whole_targets_kept_whole():
    text = dump_json(BitGrid.model_validate(content())).decode()
    assert '"weight_bits": 4\n' in text
    assert '"activation_bits": 4.5' in text
    assert '"activation_bits": [5, 4, 16]' in text
    assert text.index('"a"') < text.index('"b"')


def test_write_read_write_is_byte_identical():
    first = dump_json(BitGrid.model_validate(content()))
    again = validate(
        BitGrid,
        read_json_strict(first, where="g", error=PackError),
        where="g",
        error=PackError,
    )
    assert dump_json(again) == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format_version"),
        ({"format_version": True}, "format_version"),
        ({"format_version": 1.0}, "format_version"),
        ({"extra": 1}, "extra"),
        ({"target": {"weight_bits": 0, "activation_bits": 4}}, r"target\.weight_bits"),
        ({"target": {"weight_bits": 4, "activation_bits": 16.5}}, r"target\.activation_bits"),
        ({"target": {"weight_bits": "4", "activation_bits": 4}}, r"target\.weight_bits"),
        ({"timesteps": []} | {"layers": {}}, "timesteps"),
        ({"timesteps": [3, 3, 1]}, "step 0 is 3.0 and step 1 is 3.0"),
        ({"timesteps": [1, 2, 3]}, "must descend"),
        ({"timesteps": [9, 2, -1]}, r"timesteps\.2"),
        ({"timesteps": [9, 2, float("nan")]}, r"timesteps\.2"),
        ({"timesteps": ["9", 2, 1]}, r"timesteps\.0"),
        ({"timesteps": [1.0] * 10_001}, "timesteps: 10001 entries, more than the limit"),
        (layer(weight_bits=0), r"layers\.a\.b\.weight_bits"),
        (layer(weight_bits=9), "9 bits; it must be 1 to 8"),
        (layer(weight_bits=True), r"layers\.a\.b\.weight_bits"),
        (layer(weight_bits=4.0), r"layers\.a\.b\.weight_bits"),
        (layer(weight_bits="4"), r"layers\.a\.b\.weight_bits"),
        (layer(activation_bits=[4, 99, 4]), r"layers\.a\.b\.activation_bits\.1"),
        (layer(activation_bits=[4, 4]), "layer a.b has 2 activation bits for 3 timesteps"),
        (layer(activation_bits=[4] * 4), "layer a.b has 4 activation bits for 3 timesteps"),
    ],
)
def test_a_wrong_field_is_refused_by_name(changes, message):
    with pytest.raises(PackError, match=message):
        validate(BitGrid, content(**changes), where="bit_grid.json", error=PackError)


def test_at_step_is_a_column():
    grid = BitGrid.model_validate(content())
    assert grid.at_step(0) == {"a": 1, "b": 5}
    assert grid.at_step(2) == {"a": 2, "b": 16}
    for outside in (-1, 3):
        with pytest.raises(IndexError, match="3 timesteps"):
            grid.at_step(outside)


@pytest.mark.parametrize(
    ("timestep", "step"),
    [(1e9, 0), (900.0, 0), (701, 0), (700.25, 0), (700, 1), (500.5, 1), (250, 2), (0, 2), (-5, 2)],
)
def test_nearest_step_is_total_and_takes_the_earlier_on_a_tie(timestep, step):
    assert BitGrid.model_validate(content()).nearest_step(timestep) == step
