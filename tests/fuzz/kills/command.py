"""Kill commands at random moments, repeat them, and compare what is there with one whole run."""

import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.kills.processes import KILLED, Forked, Fresh, Runner
from tests.fuzz.kills.scenario import Scenario, Workspace, batches, builds, shown

FRESH = 0.05
"""Share of the rounds in processes of their own."""
TWICE = 0.2
"""Share of the rounds in which the repeated command is killed as well."""
LATE = 0.1
"""Share of the kills within the last tenth of a run, where few would fall otherwise."""
SCENARIOS = {"builds": builds, "batches": batches}
_MEASURED_RUNS = {Forked.name: 3, Fresh.name: 1}


@dataclass
class Report:
    """What became of the kills of one scenario.

    Attributes:
        states: what lay beside the finished results after a kill -> kills.
        failures: rounds that did not end as one whole run does.
    """

    kills: int = 0
    rounds: int = 0
    ended_before: int = 0
    states: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def render(self, name: str) -> str:
        """For people."""
        lines = [
            f"{name}: {self.kills} kills in {self.rounds} rounds, {len(self.failures)} failed;"
            f" {self.ended_before} runs had ended before their kill"
        ]
        lines += [f"  found after a kill: {state}: {n}" for state, n in self.states.most_common()]
        return "\n".join([*lines, *(f"  FAILED {failure}" for failure in self.failures)])


def run_kills(
    count: int, seed: int, *, scenarios: Sequence[str] = tuple(SCENARIOS), as_json: bool = False
) -> int:
    """As many kills, in equal shares for the scenarios; 1 if a round failed."""
    reports = {}
    runners: dict[str, Runner] = {runner.name: runner for runner in (Forked(), Fresh())}
    for name in scenarios:
        with tempfile.TemporaryDirectory(prefix="kills-") as scratch:
            scenario = SCENARIOS[name](Path(scratch))
            rng = random.Random(f"{name} {seed}")
            share = count // len(scenarios)
            reports[name] = run_rounds(scenario, runners, Path(scratch), share, rng)
        if not as_json:
            print(reports[name].render(name), flush=True)
    if as_json:
        print(json.dumps({name: vars(report) for name, report in reports.items()}))
    return 1 if any(report.failures for report in reports.values()) else 0


def run_rounds(
    scenario: Scenario,
    runners: dict[str, Runner],
    scratch: Path,
    count: int,
    rng: random.Random,
) -> Report:
    """Kill and repeat until there were so many kills."""
    report = Report()
    whole, durations = _measure(scenario, runners, scratch)
    while report.kills < count:
        runner = runners[Fresh.name if rng.random() < FRESH else Forked.name]
        workspace = Workspace(scratch / f"round-{report.rounds}").make()
        report.rounds += 1
        moments = []
        for _ in range(2 if rng.random() < TWICE else 1):
            moment = rng.uniform(0.9, 1) if rng.random() < LATE else rng.random()
            moments.append(round(moment, 4))
            end = runner.run(scenario, workspace, moment * durations[runner.name])
            if end.code != KILLED:
                report.ended_before += 1
                break
            report.kills += 1
            report.states[_state(workspace, whole)] += 1
        end = runner.run(scenario, workspace, None)
        content = workspace.content()
        done_before = end.code == 2 and "exists" in end.said
        if content != whole or not (end.code == 0 or done_before):
            report.failures.append(
                f"{runner.name}, killed at {moments}: exit {end.code} ({end.said.strip()[-300:]}),"
                f" {shown(content, whole)}"
            )
        shutil.rmtree(workspace.path)
    return report


def _measure(
    scenario: Scenario, runners: dict[str, Runner], scratch: Path
) -> tuple[dict[str, bytes], dict[str, float]]:
    """What an uninterrupted run leaves, and how long one takes for each runner, in seconds."""
    wholes, durations = [], {}
    for name, runner in runners.items():
        seconds = []
        for number in range(_MEASURED_RUNS[name]):
            workspace = Workspace(scratch / f"whole-{len(wholes)}").make()
            end = runner.run(scenario, workspace, None)
            if end.code:
                raise RuntimeError(f"run {number} ended with {end.code}: {end.said}")
            seconds.append(end.seconds)
            wholes.append(workspace.content())
            shutil.rmtree(workspace.path)
        durations[name] = sorted(seconds)[len(seconds) // 2]
    different = [shown(other, wholes[0]) for other in wholes[1:] if other != wholes[0]]
    if different:
        raise RuntimeError(f"uninterrupted runs differ: {different[0]}")
    return wholes[0], durations


def _state(workspace: Workspace, whole: dict[str, bytes]) -> str:
    """What was there after a kill, in a few words."""
    content = workspace.content()
    partial = {name.split("/")[1] for name in set(content) - set(whole) if "/" in name}
    parts = sorted({_kind(name) for name in partial if name})
    finished = sum(content.get(name) == value for name, value in whole.items() if value)
    results = "nothing" if not finished else "all" if finished >= _files(whole) else "some"
    return f"{results} finished, beside it {', '.join(parts) or 'nothing'}"


def _files(whole: dict[str, bytes]) -> int:
    return sum(1 for value in whole.values() if value)


def _kind(name: str) -> str:
    """A name without what differs between processes."""
    for kind in ("partial", "lock", "unfinished", "part", "replaced"):
        if kind in name:
            return kind
    return name
