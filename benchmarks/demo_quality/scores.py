"""Scores of pictures, kept beside them."""

import json
from collections.abc import Callable
from pathlib import Path

from artifacts.files.whole_file import write_bytes
from benchmarks.demo_quality.methods import Method
from benchmarks.demo_quality.metrics import FORMAT, Judge, Scores
from benchmarks.demo_quality.pictures import Pictures, from_file

EVERY = 24
"""Pictures between two writes."""


def score(
    pictures: Pictures, method: Method, judge: Callable[[], Judge], say: Callable[[str], None]
) -> dict[str, Scores]:
    """Scores of a method's pictures by crop; what was scored before is read.

    Args:
        pictures: all made.
        method: whose.
        judge: makes the metrics ready; called when one is needed.
        say: told what is going on.
    """
    path = pictures.folder(method) / "scores.json"
    found = _read(path)
    missing = [case for case in pictures.cases if case.name not in found]
    for done, case in enumerate(missing):
        if done % EVERY == 0:
            say(f"{method.label}: judged {done} of {len(missing)}")
            _write(path, found)
        found[case.name] = judge().scores(from_file(pictures.path(method, case)), case.truth)
    if missing:
        _write(path, found)
    return {case.name: found[case.name] for case in pictures.cases}


def _read(path: Path) -> dict[str, Scores]:
    if not path.is_file():
        return {}
    content = json.loads(path.read_text())
    return dict(content["scores"]) if content["format"] == FORMAT else {}


def _write(path: Path, scores: dict[str, Scores]) -> None:
    content = {"format": FORMAT, "scores": scores}
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())
