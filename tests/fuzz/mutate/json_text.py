"""Mutations that know JSON: keys dropped, doubled, exchanged; values of other kinds and sizes."""

import json
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from tests.fuzz.mutate import awkward
from tests.fuzz.mutate.data import mutate_bytes

BYTES_TOO = 0.15
"""How often the text itself is damaged as well."""
GENTLE = 0.4
"""How often a single value becomes another that may well be valid."""
LONGEST_TEXT = 34 * 2**20
"""Largest that a mutation makes a text, in characters: longer than anything that is read."""
INFLATED = 0.001
"""How often thousands of members are added."""


PLAUSIBLE = (0, 1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 64, 100, 500, 1000, 0.25, 0.5, 1.5, 3.0, -0.5)


class Literal(NamedTuple):
    """A piece of text that stands for a value as it is."""

    text: str


class Members(list[list[Any]]):
    """An object as a list of [key as its literal, value], in which a key may come twice."""


class Place(NamedTuple):
    """A value inside a document: ``container[index]``, a list's item or a member's pair."""

    container: list[Any]
    index: int


def parse(text: str) -> Any:
    """A document whose objects are `Members`."""
    return json.loads(text, object_pairs_hook=_members)


def dump(value: Any) -> str:
    """The document as text."""
    if isinstance(value, Literal):
        return value.text
    if isinstance(value, Members):
        return "{" + ",".join(f"{key}:{dump(item)}" for key, item in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dump, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def mutate_json(text: str, rng: Random) -> bytes:
    """One to four mutations of a JSON text, and sometimes damage to its bytes."""
    document = [parse(text)]
    if rng.random() < GENTLE:
        rng.choice(_GENTLE)(_places(document), rng)
        return dump(document[0]).encode()
    for _ in range(_how_many(rng)):
        rng.choice(_MUTATIONS)(_places(document), rng)
    if rng.random() < INFLATED:
        _inflate(_places(document), rng)
    data = dump(document[0]).encode()
    return mutate_bytes(data, rng) if rng.random() < BYTES_TOO else data


def mutate_member(text: str, path: tuple[str, ...], rng: Random) -> bytes:
    """`mutate_json` on the value at a path of keys, such as ``("sampling",)``, alone."""
    document = parse(text)
    pair = [None, document]
    for key in path:
        pair = next(pair for pair in pair[1] if pair[0] == json.dumps(key))
    mutated = mutate_json(dump(pair[1]), rng)
    pair[1] = Literal(mutated.decode("utf-8", "surrogateescape"))
    return dump(document).encode("utf-8", "surrogateescape")


def _how_many(rng: Random) -> int:
    return 1 + (rng.random() < 0.3) + (rng.random() < 0.1) + (rng.random() < 0.05)


def _members(pairs: list[tuple[str, Any]]) -> Members:
    return Members([json.dumps(key, ensure_ascii=False), value] for key, value in pairs)


def _places(document: list[Any]) -> list[Place]:
    """Every place of a document, the whole of it first."""
    found = []
    open_places = [Place(document, 0)]
    while open_places:
        place = open_places.pop()
        found.append(place)
        value = place.container[place.index]
        if isinstance(value, Members):
            open_places += [Place(pair, 1) for pair in value]
        elif isinstance(value, list):
            open_places += [Place(value, index) for index in range(len(value))]
    return found


def _get(place: Place) -> Any:
    return place.container[place.index]


def _set(place: Place, value: Any) -> None:
    place.container[place.index] = value


def _replace(places: list[Place], rng: Random) -> None:
    _set(rng.choice(places), Literal(awkward.literal(rng)))


def _nudge(places: list[Place], rng: Random) -> None:
    """Another number of the same kind: off by one, negated, doubled."""
    numbers = [place for place in places if type(_get(place)) in {int, float}]
    if numbers:
        place = rng.choice(numbers)
        value = _get(place)
        _set(place, rng.choice((value + 1, value - 1, -value, value * 2, value * 1000, value / 3)))


def _plausible(places: list[Place], rng: Random) -> None:
    """A number that many fields take, or the opposite of a truth value."""
    scalars = [place for place in places if type(_get(place)) in {int, float, bool}]
    if scalars:
        place = rng.choice(scalars)
        value = _get(place)
        _set(place, not value if isinstance(value, bool) else rng.choice(PLAUSIBLE))


def _from_sibling(places: list[Place], rng: Random) -> None:
    """The value that another object has under the same key, or another item of the list."""
    place = rng.choice(places)
    same = [
        other
        for other in places
        if (other.container is place.container and other.index != 1)
        or (other.index == 1 and place.index == 1 and other.container[0] == place.container[0])
    ]
    if same:
        _set(place, Literal(dump(_get(rng.choice(same)))))


def _retype(places: list[Place], rng: Random) -> None:
    """The same value as another type: a number as text, in a list, as a float."""
    place = rng.choice(places)
    text = dump(_get(place))
    _set(
        place,
        Literal(rng.choice((json.dumps(text), f"[{text}]", f"{text}.0", f'{{"a":{text}}}'))),
    )


def _copy(places: list[Place], rng: Random) -> None:
    """A value from elsewhere in the document."""
    source, place = rng.choice(places), rng.choice(places)
    _set(place, Literal(dump(_get(source))))


def _swap(places: list[Place], rng: Random) -> None:
    first, second = rng.choice(places), rng.choice(places)
    one, two = Literal(dump(_get(first))), Literal(dump(_get(second)))
    _set(first, two)
    _set(second, one)


def _containers(places: list[Place], kind: type) -> list[Any]:
    values = (_get(place) for place in places)
    return [value for value in values if type(value) is kind and value]


def _drop(places: list[Place], rng: Random) -> None:
    containers = _containers(places, Members) + _containers(places, list)
    if containers:
        container = rng.choice(containers)
        del container[rng.randrange(len(container))]


def _double(places: list[Place], rng: Random) -> None:
    """A member or an item twice, or many times."""
    containers = _containers(places, Members) + _containers(places, list)
    if containers:
        container = rng.choice(containers)
        item = container[rng.randrange(len(container))]
        times = 1 if rng.random() < 0.95 else rng.choice((10, 1000, 20_000))
        length = len(dump(item[1] if isinstance(container, Members) else item))
        container += [item] * _at_most(times, length)


def _rekey(places: list[Place], rng: Random) -> None:
    """Another key: awkward, one from elsewhere, or two exchanged."""
    objects = _containers(places, Members)
    if objects:
        pair = rng.choice(rng.choice(objects))
        other = rng.choice(rng.choice(objects))
        kind = rng.random()
        if kind < 0.4:
            pair[0] = awkward.text(rng)
        elif kind < 0.7:
            pair[0] = other[0]
        else:
            pair[0], other[0] = other[0], pair[0]


def _add(places: list[Place], rng: Random) -> None:
    objects = _containers(places, Members)
    if objects:
        new = [awkward.text(rng), Literal(awkward.literal(rng))]
        members = rng.choice(objects)
        members.insert(rng.randrange(len(members) + 1), new)


def _inflate(places: list[Place], rng: Random) -> None:
    """Thousands of new members with keys of their own."""
    objects = _containers(places, Members)
    if objects:
        members = rng.choice(objects)
        value = Literal(dump(rng.choice(members)[1]))
        count = rng.choice((500, 500, 5_000, 5_000, 50_000, 50_000, 50_000, 400_000))
        count = _at_most(count, len(value.text))
        members.extend([f'"{number:x}"', value] for number in range(count))


def _at_most(count: int, length: int) -> int:
    """As many values of a length in characters as one text may have."""
    return min(count, LONGEST_TEXT // (length + 10))


_GENTLE: tuple[Callable[[list[Place], Random], None], ...] = (
    *(_nudge, _plausible, _plausible, _from_sibling, _retype, _drop, _swap),
)
_MUTATIONS: tuple[Callable[[list[Place], Random], None], ...] = (
    *(_replace, _replace, _replace, _nudge, _nudge, _nudge, _retype),
    *(_copy, _copy, _swap, _drop, _double, _rekey, _add),
)
