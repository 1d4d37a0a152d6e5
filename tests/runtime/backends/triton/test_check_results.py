"""What is kept of checks, in a file that may be damaged, foreign or impossible to write."""

import json
import os

import pytest

from runtime.backends.triton import check_results
from runtime.backends.triton.check_results import Result, forget, recall, remember, results_file

FACTS = {"device": "NVIDIA H100", "driver": "535.1", "triton": "3.6.0", "torch": "2.11", "x": "1"}
OTHER = FACTS | {"driver": "550.2"}


@pytest.fixture(autouse=True)
def a_cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    forget()
    yield
    forget()


def recalled(facts):
    """What a new process recalls."""
    forget()
    return recall(facts)


def test_results_are_kept_by_what_they_depend_on():
    assert recalled(FACTS) is None
    remember(FACTS, None)
    remember(OTHER, "integer sums differ")
    assert recalled(FACTS) == Result(None)
    assert recalled(OTHER) == Result("integer sums differ")
    assert recalled(FACTS | {"x": "2"}) is None
    remember(OTHER, None)
    assert recalled(OTHER) == Result(None)
    entries = json.loads(results_file().read_text())["checks"].values()
    assert [entry["driver"] for entry in entries] == ["535.1", "550.2"]


def sound():
    remember(FACTS, None)
    forget()
    return json.loads(results_file().read_text())


def with_entry(**changes):
    content = sound()
    for entry in content["checks"].values():
        entry.update(changes)
    return json.dumps(content)


DAMAGED = {
    "empty": lambda: "",
    "cut off": lambda: json.dumps(sound())[:-9],
    "not text": lambda: b"\xff\xfe\x00" * 50,
    "another program's": lambda: '{"tools": [1, 2]}',
    "a list": lambda: "[]",
    "a number": lambda: "7",
    "nothing": lambda: "null",
    "deeply nested": lambda: "[" * 100_000,
    "too long": lambda: " " * (1 << 20) + json.dumps(sound()),
    "a newer version": lambda: json.dumps(sound() | {"version": 2}),
    "checks that are a list": lambda: json.dumps(sound() | {"checks": [1]}),
    "an entry that is a number": lambda: json.dumps(
        sound() | {"checks": dict.fromkeys(sound()["checks"], 3)}
    ),
    "an entry without a result": lambda: json.dumps(
        sound() | {"checks": {key: {"device": "a"} for key in sound()["checks"]}}
    ),
    "a failure that is a number": lambda: with_entry(failure=1),
    "a failure that a terminal obeys": lambda: with_entry(failure="\x1b]0;owned\x07"),
    "a failure without end": lambda: with_entry(failure="a" * 5000),
    "an entry with more": lambda: with_entry(more="a"),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_or_foreign_file_counts_for_nothing(content):
    data = content()
    data = data if isinstance(data, bytes) else data.encode()
    results_file().parent.mkdir(parents=True, exist_ok=True)
    results_file().write_bytes(data)
    assert recalled(FACTS) is None
    remember(FACTS, "a reason")  # written over
    assert recalled(FACTS) == Result("a reason")


def test_one_damaged_entry_leaves_the_others():
    content = sound()
    content["checks"]["not a hash"] = {"failure": None}
    results_file().write_text(json.dumps(content))
    assert recalled(FACTS) == Result(None)


def test_a_folder_in_its_place_is_left_alone():
    results_file().mkdir(parents=True)
    remember(FACTS, None)
    assert recall(FACTS) == Result(None)  # this process
    assert recalled(FACTS) is None
    assert results_file().is_dir()


def test_a_pipe_in_its_place_does_not_block():
    results_file().parent.mkdir(parents=True)
    os.mkfifo(results_file())
    assert recalled(FACTS) is None


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "cache").write_text("a file where the cache should be")
    remember(FACTS, "a reason")
    assert recall(FACTS) == Result("a reason")
    assert recalled(FACTS) is None


def test_a_disk_that_fails(monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(check_results, "write_bytes", full)
    remember(FACTS, None)
    assert recall(FACTS) == Result(None)


def test_a_user_without_a_home(monkeypatch):
    monkeypatch.setattr(check_results, "user_cache", lambda: None)
    remember(FACTS, None)
    assert recall(FACTS) == Result(None)
    assert recalled(FACTS) is None


def test_the_oldest_results_go():
    for number in range(70):
        remember(FACTS | {"x": str(number)}, None)
    assert recalled(FACTS | {"x": "5"}) is None
    assert recalled(FACTS | {"x": "6"}) == Result(None)
    assert recalled(FACTS | {"x": "69"}) == Result(None)
