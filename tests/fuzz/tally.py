"""Counts of what became of the cases."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.fuzz.judge import FAILED, REFUSED, Verdict

MIB = 2**20
SHOWN_FAILURES = 12


@dataclass(frozen=True)
class Failure:
    """A case that failed; target, seed and number make it again."""

    index: int
    name: str
    text: str


@dataclass
class Tally:
    """What became of some cases.

    Attributes:
        outcomes: kind of the verdict, with the class of a typed error -> cases.
        mutated: (what was mutated, kind of the verdict) -> cases.
        failures: all that failed.
        slowest: processor time in seconds, and the case that took it.
        largest: memory above the baseline in bytes, and the case that took it.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    mutated: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)
    largest: tuple[int, int] = (0, -1)

    @property
    def cases(self) -> int:
        """How many there were."""
        return self.outcomes.total()

    def add(self, index: int, what: str, verdict: Verdict, cpu_s: float, memory: int) -> None:
        """Count one case."""
        name = f"{REFUSED} ({verdict.name})" if verdict.kind == REFUSED else verdict.kind
        self.outcomes[name] += 1
        self.mutated[what, verdict.kind] += 1
        if verdict.kind == FAILED:
            self.failures.append(Failure(index, verdict.name, verdict.text))
        self.slowest = max(self.slowest, (cpu_s, index))
        self.largest = max(self.largest, (memory, index))

    def merge(self, other: "Tally") -> None:
        """Add the counts of other cases."""
        self.outcomes += other.outcomes
        self.mutated += other.mutated
        self.failures += other.failures
        self.slowest = max(self.slowest, other.slowest)
        self.largest = max(self.largest, other.largest)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "cases": self.cases,
            "outcomes": dict(sorted(self.outcomes.items())),
            "failures": [vars(failure) for failure in self.failures],
            "slowest_cpu_s": round(self.slowest[0], 3),
            "largest_memory_mib": round(self.largest[0] / MIB, 1),
        }

    def render(self, target: str, seed: int) -> str:
        """For people."""
        lines = [f"{target}, seed {seed}: {self.cases:,} cases, {len(self.failures)} failed"]
        lines += [f"  {name}: {count:,}" for name, count in sorted(self.outcomes.items())]
        lines.append(
            f"  slowest: {self.slowest[0]:.3f} s of processor time (case {self.slowest[1]})"
        )
        lines.append(
            f"  most memory: {self.largest[0] / MIB:.1f} MiB above the baseline"
            f" (case {self.largest[1]})"
        )
        for what in sorted({what for what, _ in self.mutated}):
            kinds = {kind: count for (w, kind), count in self.mutated.items() if w == what}
            shown = ", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items()))
            lines.append(f"  mutated {what}: {shown}")
        for name, count in Counter(failure.name for failure in self.failures).most_common():
            lines.append(f"  FAILED {name}: {count:,}")
        for failure in self.failures[:SHOWN_FAILURES]:
            lines.append(f"    case {failure.index}: {failure.name}: {failure.text[:300]!r}")
        return "\n".join(lines)
