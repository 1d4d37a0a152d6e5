"""The search for group sizes: seeded, resumable, within its budget, and it finds what is better."""

import pytest

from planner.learned.groups import MEAN_SIZE, GroupSearch, sizes_for

SHAPES = {"narrow": (96, 96), "wide": (384, 96), "long": (96, 384)}


def error(groups):
    """Least where the wide layer has the smallest groups, and the narrow the largest."""
    return groups["wide"] - 0.1 * groups["narrow"] + 1000


def test_sizes_divide_the_row():
    assert sizes_for(96) == [16, 24, 32, 48, 96]
    assert sizes_for(7) == [7]


def test_it_finds_better_sizes_within_the_budget():
    seen = []

    def recorded(groups):
        seen.append(dict(groups))
        return error(groups)

    search = GroupSearch(SHAPES, recorded, seed=0)
    found = search.run(10)
    assert seen[0] == dict.fromkeys(SHAPES, 32)
    assert error(found) < error(seen[0])
    assert all(search.cost(groups) <= 1 / MEAN_SIZE for groups in seen)


def test_an_interrupted_search_ends_where_the_other_does(tmp_path):
    whole = GroupSearch(SHAPES, error, seed=3).run(6)
    count = 0

    def stops(groups):
        nonlocal count
        count += 1
        if count == 15:
            raise KeyboardInterrupt
        return error(groups)

    with pytest.raises(KeyboardInterrupt):
        GroupSearch(SHAPES, stops, seed=3, work=tmp_path).run(6)
    assert GroupSearch(SHAPES, error, seed=3, work=tmp_path).run(6) == whole
