"""Several draws of a recipe: which builds they are, and what becomes of their values."""

from benchmarks.quality.draws import draws_of, merge_draws
from benchmarks.quality.rows import Row

ROW = Row("W4A4", "ours", "ours", "ours", recipe="standard", overrides={"global_rank": 2})


def content(values):
    return {"values": {"latent_db": values}, "stored_bits": 4.0}


def test_draws_differ_in_the_seed_alone_and_the_first_is_the_row():
    first, second, third = draws_of(ROW, 3)
    assert first == ROW
    assert second.overrides == {"global_rank": 2, "seed": 1}
    assert third.overrides == {"global_rank": 2, "seed": 2}
    assert len({row.full_name for row in (first, second, third)}) == 3
    assert draws_of(Row("W4A4", "peer", "a peer", "peer", sdnq={"x": 1}), 3)[1:] == []


def test_values_of_all_draws_count_as_noises_of_an_image():
    draws = {ROW.full_name: draws_of(ROW, 3)}
    names = [row.full_name for row in draws[ROW.full_name]]
    contents = {names[0]: content([[1.0], [3.0]]), names[2]: content([[5.0], [7.0]])}
    merged = merge_draws(draws, contents)[ROW.full_name]
    assert merged["values"]["latent_db"] == [[1.0, 5.0], [3.0, 7.0]]
    assert merged["draws"] == [2.0, 6.0]
    assert merged["stored_bits"] == 4.0
    assert merge_draws(draws, {}) == {}
