"""A slice of the fuzzing campaign: a few seconds of every kind of input."""

import json
import subprocess
import sys

import pytest

from tests.fuzz.__main__ import SLICE

SEED = 0


@pytest.fixture(scope="module")
def tallies():
    command = [sys.executable, "-m", "tests.fuzz", "slice", "--seed", str(SEED), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("target", SLICE)
def test_mutated_inputs_get_a_typed_error_or_an_equal_result(tallies, target):
    tally = tallies[target]
    again = f"python -m tests.fuzz {target} --seed {SEED} --count 1 --save FOLDER --first"
    assert [(f"{again} {f['index']}", f["name"], f["text"]) for f in tally["failures"]] == []
    assert tally["cases"] == SLICE[target]
    # Not all of them end at the first check.
    assert {"equal", "changed"} <= set(tally["outcomes"])
