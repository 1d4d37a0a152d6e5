"""The judge and the limits catch what is planted."""

import json
import subprocess
import sys

import pytest

from tests.fuzz.case import Case
from tests.fuzz.judge import FAILED, Verdict, judge
from tests.fuzz.targets.planted import FAULTS, Planted

SOUND = ("equal", "changed", "refused (PackError)")


@pytest.fixture(scope="module")
def tally():
    """What two workers say, each of which dies several times."""
    command = [sys.executable, "-m", "tests.fuzz", "planted", "--count", str(len(FAULTS))]
    done = subprocess.run(
        [*command, "--jobs", "2", "--blocked-s", "5", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    return json.loads(done.stdout)["planted"]


def test_every_planted_fault_is_caught_and_named(tally):
    caught = {failure["index"]: failure["name"] for failure in tally["failures"]}
    planted = {i: name for i, (name, _) in enumerate(FAULTS) if name not in SOUND}
    assert caught == planted


def test_sound_cases_count_as_sound(tally):
    for outcome in SOUND:
        assert tally["outcomes"][outcome] == [name for name, _ in FAULTS].count(outcome)


def test_no_case_is_lost_with_its_worker(tally):
    assert tally["cases"] == len(FAULTS)


def test_memory_is_that_of_the_peak(tally):
    assert tally["largest_memory_mib"] > 400


@pytest.mark.parametrize("raw", ["\x1b", "\n", "\x7f", "\u202e", "\u2028", "\udcff"])
def test_a_raw_character_in_a_message_is_noticed(monkeypatch, raw):
    refusing = str([name for name, _ in FAULTS].index("refused (PackError)"))
    assert judge(Planted(), Case("nothing", {}, refusing)) == Verdict("refused", "PackError")
    monkeypatch.setattr("tests.fuzz.judge.describe_error", lambda _: (3, [f"error: {raw}[31m"]))
    verdict = judge(Planted(), Case("nothing", {}, refusing))
    assert (verdict.kind, verdict.name) == (FAILED, "raw control character")
