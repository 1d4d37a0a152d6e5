"""A recipe is drawn several times, because what a build draws at random decides by decibels.

The signs of a rotation and the start of a decomposition come from the build's seed. Which errors
they give falls differently every time, and with few layers that matter, one draw says little about
a recipe. Intervals over images do not show it: every image sees the same draw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.quality.intervals import per_image
from benchmarks.quality.rows import Row
from benchmarks.quality.store import Content

MARK = "~"
"""Between a row's name and the number of a further draw."""


def draws_of(row: Row, count: int) -> list[Row]:
    """``row`` with as many seeds of the build; the first is the row itself. A peer has but one."""
    if not row.recipe:
        return [row]
    further = [
        replace(
            row,
            name=f"{row.name}{MARK}{seed}",
            overrides={**row.overrides, "seed": seed},
            against=(),
        )
        for seed in range(1, count)
    ]
    return [row, *further]


def merge_draws(
    draws: Mapping[str, Sequence[Row]], contents: Mapping[str, Content]
) -> dict[str, Content]:
    """One content per row, of those of its draws that are there.

    Its values are those of all draws, as if they were further noises of an image; ``draws`` has the
    mean latent error of each. What else it says is of the first draw.
    """
    found = {}
    for name, rows in draws.items():
        of_draws = [contents[row.full_name] for row in rows if row.full_name in contents]
        if of_draws:
            found[name] = _merged(of_draws)
    return found


def _merged(contents: Sequence[Content]) -> Content:
    values = {
        metric: [
            [value for content in contents for value in content["values"][metric][image]]
            for image in range(len(of_first))
        ]
        for metric, of_first in contents[0]["values"].items()
        if all(metric in content["values"] for content in contents)
    }
    means = [float(np.mean(per_image(content["values"]["latent_db"]))) for content in contents]
    return {**contents[0], "values": values, "draws": means}
