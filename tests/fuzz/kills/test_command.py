"""What a killed command leaves, or writes differently, is noticed."""

import random

import pytest

from tests.fuzz.kills.command import run_rounds
from tests.fuzz.kills.processes import KILLED, End, Forked, Fresh
from tests.fuzz.kills.scenario import Scenario

SCENARIO = Scenario("stand-in", "nothing", lambda out: [str(out)])


class StandIn:
    """Writes one file, in half a second; `again` may spoil what the repeated command does."""

    name = Forked.name

    def __init__(self, again=lambda _: None):
        self._again = again

    def run(self, scenario, workspace, kill_after_s):
        if kill_after_s is not None and kill_after_s < 0.5:
            (workspace.out / ".lock").touch()
            return End(KILLED, kill_after_s, "")
        was_killed = (workspace.out / ".lock").exists()
        (workspace.out / ".lock").unlink(missing_ok=True)
        (workspace.out / "result").write_bytes(b"7")
        if was_killed:
            self._again(workspace)
        return End(0, 0.5, "")


def rounds(tmp_path, runner):
    runners = {Forked.name: runner, Fresh.name: runner}
    return run_rounds(SCENARIO, runners, tmp_path, 20, random.Random(0))


def test_a_sound_command_passes(tmp_path):
    report = rounds(tmp_path, StandIn())
    assert report.failures == []
    assert report.kills >= 20
    assert set(report.states) == {"nothing finished, beside it lock"}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda workspace: (workspace.out / ".part").touch(), '"left over": ["out/.part"]'),
        (lambda workspace: (workspace.path / "tmp" / "x").touch(), '"left over": ["tmp/x"]'),
        (lambda workspace: (workspace.out / "result").unlink(), '"missing": ["out/result"]'),
        (
            lambda workspace: (workspace.out / "result").write_bytes(b"8"),
            '"different": ["out/result"]',
        ),
    ],
)
def test_what_differs_from_one_whole_run_is_a_failure(tmp_path, spoil, said):
    report = rounds(tmp_path, StandIn(spoil))
    assert len(report.failures) == report.rounds - report.ended_before
    assert all(said in failure for failure in report.failures)
