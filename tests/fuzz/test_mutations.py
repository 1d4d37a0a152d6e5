"""Mutations are what they say, and the same every time."""

import json
import struct
import zlib
from random import Random

import pytest

from tests.fuzz.mutate.chunks import PNG_START, mutate_png_chunk, mutate_tiff_entry
from tests.fuzz.mutate.data import mutate_bytes
from tests.fuzz.mutate.json_text import dump, mutate_json, mutate_member, parse
from tests.fuzz.targets.pictures import pictures

TEXT = '{"a": 1, "b": [1, 2.5, {"c": null}], "é": "\\u00e9\\n", "d": {"c": true}}'


def mutated(mutate, *inputs, count=400):
    return [mutate(*inputs, Random(seed)) for seed in range(count)]


def test_what_is_not_mutated_stays():
    assert json.loads(dump(parse(TEXT))) == json.loads(TEXT)


@pytest.mark.parametrize(("mutate", "value"), [(mutate_json, TEXT), (mutate_bytes, TEXT.encode())])
def test_a_seed_gives_the_same_again_and_others_something_else(mutate, value):
    first = mutated(mutate, value)
    assert first == mutated(mutate, value)
    assert len(set(first)) > 150


def test_json_is_mutated_in_all_its_ways():
    texts = mutated(mutate_json, TEXT, count=2000)
    valid = []
    for text in texts:
        try:
            valid.append(json.loads(text, object_pairs_hook=list))
        except (ValueError, RecursionError):
            continue
    assert 400 < len(valid) < 1900
    objects = [pairs for pairs in valid if isinstance(pairs, list) and pairs]
    keys = [[pair[0] for pair in pairs] for pairs in objects if isinstance(pairs[0], tuple)]
    assert any(len(set(names)) < len(names) for names in keys)
    assert any("a" not in names for names in keys)
    joined = b"".join(texts)
    for part in (b"NaN", b"1e308", b"\\ud800", b"[[[[[[[[[[", b"\\u001b", b"9223372036854775808"):
        assert part in joined


def test_one_member_is_mutated_and_the_others_stay():
    for text in mutated(mutate_member, TEXT, ("d",)):
        assert text.startswith(b'{"a":1,"b":[1,2.5,{"c":null}],')


def test_chunks_of_a_png_keep_their_checksums():
    for data in mutated(mutate_png_chunk, pictures()["rgba.png"]):
        place = len(PNG_START)
        while place < len(data):
            (length,) = struct.unpack_from(">I", data, place)
            end = place + 8 + length
            assert struct.unpack_from(">I", data, end)[0] == zlib.crc32(data[place + 4 : end])
            place = end + 4


def test_an_entry_of_a_tiff_is_changed_and_its_length_is_not():
    data = pictures()["rgb.tif"]
    changed = mutated(mutate_tiff_entry, data)
    assert {len(other) for other in changed} == {len(data)}
    assert len(set(changed)) > 100
