import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.bit_grid import BitGrid
from schemas.errors import CheckpointError, PackError
from schemas.json_io import (
    MAX_JSON_DEPTH,
    format_json,
    read_json_file,
    read_json_strict,
    validate,
)
from schemas.manifest import Producer


def read(data: bytes, **limits):
    return read_json_strict(data, where="x.json", error=PackError, **limits)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a": 1, "a": 1}', "'a' appears twice"),
        (b'{"o": {"b": 1, "c": 2, "b": 3}}', "'b' appears twice"),
        (b"NaN", "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b"1e999", "1e999 is out of range"),
        (b"-0", "-0 in JSON"),
        (b'{"a": [1, -0]}', "-0 in JSON"),
        (b"9" * 5000, "limit"),
        (b'"\xff"', "UTF-8"),
        (rb'"\ud800"', "UTF-8"),
        (rb'{"\udc00x": 1}', "UTF-8"),
        (b'{"a": 1', "brackets"),
        (b"[" * 10_000 + b"]" * 10_000, "nest deeper"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nest deeper"),
        (b"[" * 10_000, "brackets"),
        (b"", "Expecting value"),
        (b"1 2", "Extra data"),
    ],
)
def test_refused_with_file_and_reason(data, reason):
    with pytest.raises(PackError, match=reason) as caught:
        read(data)
    assert str(caught.value).startswith("x.json: ")


def test_a_picture_is_told_from_broken_json(tmp_path):
    file = tmp_path / "grid.json"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(PackError, match="a picture, not JSON"):
        read_json_file(file, where="grid.json", error=PackError)


def test_messages_speak_of_json_and_not_of_classes():
    with pytest.raises(PackError) as caught:
        validate(BitGrid, [], where="g.json", error=PackError)
    assert str(caught.value) == "g.json: document: Input should be a JSON object"


def test_floats_and_texts_with_a_minus_and_a_zero_are_read():
    assert read(b'[-0.0, -0e1, -0E1, "-0", "a\\"-0", -10]') == [0, 0, 0, "-0", 'a"-0', -10]


def test_the_error_type_is_the_callers():
    with pytest.raises(CheckpointError):
        read_json_strict(b"{", where="config.json", error=CheckpointError)


def test_nesting_at_the_limit_is_read_and_one_more_is_not():
    value = read(b"[" * MAX_JSON_DEPTH + b"]" * MAX_JSON_DEPTH)
    for _ in range(MAX_JSON_DEPTH - 1):
        (value,) = value
    assert value == []
    with pytest.raises(PackError, match="nest deeper"):
        read(b"[" * (MAX_JSON_DEPTH + 1) + b"]" * (MAX_JSON_DEPTH + 1))


def test_brackets_inside_texts_do_not_count():
    text = "]}[" * 100 + '\\"' + "[" * 100 + "\\"
    assert read(json.dumps({text: [text]}).encode()) == {text: [text]}


def test_size_is_checked_before_parsing(tmp_path):
    with pytest.raises(PackError, match="11 bytes of JSON, more than the limit of 10"):
        read(b"not even {{", max_bytes=10)
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.truncate(2**30)  # sparse: nothing of the gigabyte is on disk, nor may it be read
    with pytest.raises(PackError, match=f"{2**30} bytes of JSON"):
        read_json_file(huge, where="huge.json", error=PackError)


def test_unreadable_file_is_named(tmp_path):
    with pytest.raises(PackError, match=r"gone\.json: cannot be read: No such file"):
        read_json_file(tmp_path / "gone.json", where="gone.json", error=PackError)


def test_validate_names_the_fields_and_counts_the_rest():
    with pytest.raises(PackError, match=r"^m\.json: name: .*valid string; version: Field required"):
        validate(Producer, {"name": 4}, where="m.json", error=PackError)
    many = {str(n): n for n in range(10)}
    with pytest.raises(PackError, match="and 9 more"):
        validate(Producer, many, where="m.json", error=PackError)


def test_layout_is_sorted_and_keeps_plain_arrays_on_one_line():
    assert format_json({"b": [1, 2.5, None], "a": {"x": [[1], [2]], "w": {}, "v": []}}) == (
        '{\n  "a": {\n    "v": [],\n    "w": {},\n    "x": [\n      [1],\n      [2]\n    ]\n  },\n'
        '  "b": [1, 2.5, null]\n}\n'
    )


def test_nan_is_never_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        format_json({"a": float("nan")})


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(deadline=None, max_examples=100)
@given(JSON_VALUES)
def test_what_is_written_reads_back_and_writes_the_same_bytes(value):
    text = format_json(value)
    again = read(text.encode())
    assert again == value
    assert format_json(again) == text


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60) | st.text('{}[]",:\\u0d8aNe1. ', max_size=60).map(str.encode))
def test_any_bytes_give_a_value_or_the_typed_error(data):
    try:
        value = read(data)
    except PackError:
        return
    assert value == json.loads(data)


def test_many_keys_with_one_twice_take_time_in_proportion():
    keys = [f'"{index}": 0' for index in range(90_000)]
    text = ("{" + ", ".join([*keys, '"89999": 0']) + "}").encode()
    # Comparing every key with all before it would take hours here.
    with pytest.raises(PackError, match="'89999' appears twice"):
        read(text)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PackError, match="not a regular file"):
        read_json_file(tmp_path / "pipe", where="pipe", error=PackError)
