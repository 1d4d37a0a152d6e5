"""What became of one case: refused with a typed error, equal, changed but sound, or a failure."""

import os
import traceback
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from schemas.error_text import describe_error
from schemas.errors import QPackError
from tests.fuzz.case import CHANGED, EQUAL, Case, Target, WrongResultError

REFUSED = "refused"
FAILED = "failed"
LONGEST_MESSAGE = 4000
"""Characters of an error's one or two lines: names are shortened, and there are only a few."""
_UNPRINTED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Control and formatting characters, half surrogates, line ends: a terminal would obey them."""


@dataclass(frozen=True)
class Verdict:
    """What became of one case.

    Attributes:
        kind: `EQUAL`, `CHANGED`, `REFUSED` or `FAILED`.
        name: class of the typed error, or what sort of failure it is.
        text: for failures, what was seen.
    """

    kind: str
    name: str = ""
    text: str = ""


def judge(target: Target, case: Case) -> Verdict:
    """Run a case; never raises an `Exception`."""
    said_before = _said()
    try:
        verdict = _run(target, case)
    except QPackError as error:
        verdict = _refused(target, error)
    except WrongResultError as error:
        verdict = Verdict(FAILED, "wrong result", str(error))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno} {place.name}"
        verdict = Verdict(FAILED, type(error).__name__, f"{where}: {error}"[:500])
    said = _said()
    if said > said_before and verdict.kind != FAILED:
        text = os.pread(2, 500, said_before).decode("utf-8", "replace")
        return Verdict(FAILED, "output on stderr", text)
    return verdict


def _run(target: Target, case: Case) -> Verdict:
    result = target.run(case)
    if result not in {EQUAL, CHANGED}:
        raise ValueError(f"target {target.name} gave {result!r}")
    return Verdict(result)


def _refused(target: Target, error: QPackError) -> Verdict:
    _, lines = describe_error(error)
    text = "\n".join(lines)
    if not isinstance(error, target.errors):
        return Verdict(FAILED, type(error).__name__, text[:500])
    raw = sorted({c for line in lines for c in line if unicodedata.category(c) in _UNPRINTED})
    if raw:
        return Verdict(FAILED, "raw control character", f"{raw!r} in {text!r}"[:500])
    if len(text) > LONGEST_MESSAGE:
        return Verdict(FAILED, "long message", f"{len(text)} characters: {text[:300]!r}")
    return Verdict(REFUSED, type(error).__name__)


def _said() -> int:
    """Bytes on stderr, which the worker has made a file."""
    return os.fstat(2).st_size
