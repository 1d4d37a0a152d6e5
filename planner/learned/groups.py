"""Sizes of groups, layer by layer, found by an evolutionary search (Q-DiT, arXiv 2406.17343).

In groups, neighbouring channels share a step instead of a whole row or token: `g` weights of a row,
and the `g` values of a token that they are multiplied with. Smaller groups round better and store
more steps. The search finds the sizes of least error of the velocity among those whose steps cost
no more together than groups of `MEAN_SIZE` everywhere.
"""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from artifacts.files.whole_file import write_bytes

Groups = dict[str, int]
"""Layer name -> size of its groups."""

SMALLEST = 16
MEAN_SIZE = 32
"""Half a bit a weight for steps of 16 bits: less than factors of the usual ranks take."""
POPULATION = 8
PARENTS = 4
MUTATION = 0.05
"""Share of the layers whose size is drawn anew, at least one: a child stays near its parents."""
STATE_FILE = "groups.json"


@dataclass(frozen=True)
class Candidate:
    """Sizes, and the error that they leave."""

    groups: Groups
    error: float


class GroupSearch:
    """Searches sizes.

    Args:
        shapes: layer name -> (out, in).
        error: of a network with these groups; lower is better.
        seed: of every draw.
        work: existing folder for the state of an unfinished search; None for keeping none.
        report: told about every generation.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int]],
        error: Callable[[Groups], float],
        seed: int,
        *,
        work: Path | None = None,
        report: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._shapes, self._error, self._seed = shapes, error, seed
        self._report = report
        self._sizes = {name: sizes_for(columns) for name, (_, columns) in shapes.items()}
        self._state_file = None if work is None else work / STATE_FILE

    def run(self, generations: int) -> Groups:
        """The best sizes after so many generations."""
        generation, population = self._read_state()
        while generation < generations:
            draw = random.Random(f"{self._seed} {generation}")
            fresh = [
                Candidate(groups, self._error(groups))
                for groups in self._offspring(population, draw)
            ]
            population = sorted([*population, *fresh], key=lambda one: one.error)[:POPULATION]
            generation += 1
            self._save(generation, population)
            self._report(f"groups, {generation}/{generations}: error {population[0].error:.5f}")
        return population[0].groups

    def cost(self, groups: Groups) -> float:
        """Steps per weight."""
        weights = {name: rows * columns for name, (rows, columns) in self._shapes.items()}
        steps = sum(weights[name] / size for name, size in groups.items())
        return steps / sum(weights.values())

    def _offspring(self, population: list[Candidate], draw: random.Random) -> list[Groups]:
        if not population:
            uniform = {
                name: min(sizes, key=lambda size: (abs(size - MEAN_SIZE), -size))
                for name, sizes in self._sizes.items()
            }
            drawn = [self._mutated(uniform, draw) for _ in range(POPULATION - 1)]
            return [self._within_budget(uniform, draw), *drawn]
        parents = population[:PARENTS]
        return [self._child(parents, draw) for _ in range(POPULATION - PARENTS)]

    def _child(self, parents: list[Candidate], draw: random.Random) -> Groups:
        first, second = draw.choice(parents).groups, draw.choice(parents).groups
        child = {name: draw.choice((first, second))[name] for name in self._sizes}
        return self._mutated(child, draw)

    def _mutated(self, groups: Groups, draw: random.Random) -> Groups:
        changed = draw.sample(sorted(groups), max(1, round(MUTATION * len(groups))))
        drawn = {name: draw.choice(self._sizes[name]) for name in changed}
        return self._within_budget({**groups, **drawn}, draw)

    def _within_budget(self, groups: Groups, draw: random.Random) -> Groups:
        """Layers drawn at random get larger groups until all steps together are few enough."""
        groups = dict(groups)
        while self.cost(groups) > 1 / MEAN_SIZE:
            larger = {
                name: [size for size in self._sizes[name] if size > groups[name]] for name in groups
            }
            open_to_it = [name for name, sizes in larger.items() if sizes]
            if not open_to_it:
                break
            name = draw.choice(open_to_it)
            groups[name] = larger[name][0]
        return groups

    def _save(self, generation: int, population: list[Candidate]) -> None:
        if self._state_file is not None:
            found = [{"groups": one.groups, "error": one.error} for one in population]
            content = json.dumps({"generation": generation, "population": found})
            write_bytes(self._state_file, content.encode())

    def _read_state(self) -> tuple[int, list[Candidate]]:
        if self._state_file is None or not self._state_file.is_file():
            return 0, []
        state = json.loads(self._state_file.read_text())
        return state["generation"], [Candidate(**one) for one in state["population"]]


def sizes_for(columns: int) -> list[int]:
    """Divisors of a row's length from `SMALLEST` to the whole row, ascending."""
    found = [size for size in range(SMALLEST, columns + 1) if columns % size == 0]
    return found or [columns]
