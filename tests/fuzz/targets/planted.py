"""Faults on purpose: what the judge and the limits must catch."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from schemas.errors import PackError
from tests.fuzz.case import CHANGED, EQUAL, Case, WrongResultError


def _hang() -> str:
    while True:
        pass


def _hang_outside_python() -> str:
    # One operation of the interpreter: no signal handler in Python would run before its end.
    return str(sum(range(10**12)))


def _wait_for_ever() -> str:
    time.sleep(1e6)
    return EQUAL


def _foreign() -> str:
    return str({}["key"])


def _refuse() -> str:
    raise PackError("manifest.json: layers: document: wrong", hint="make it anew")


def _babble() -> str:
    raise PackError("a" * 5000)


def _take_memory() -> str:
    return EQUAL if bytearray(b"a" * 2**20) * 400 else CHANGED


def _take_too_much() -> str:
    return EQUAL if bytearray(2**36) else CHANGED


def _print() -> str:
    os.write(2, b"(process:1): VIPS-WARNING\n")
    return EQUAL


def _wrong() -> str:
    raise WrongResultError("a picture with NaN")


def _crash() -> str:
    os.abort()


FAULTS: tuple[tuple[str, Callable[[], str]], ...] = (
    ("equal", lambda: EQUAL),
    ("slow", _hang),
    ("changed", lambda: CHANGED),
    ("slow", _hang_outside_python),
    ("blocked", _wait_for_ever),
    ("KeyError", _foreign),
    ("refused (PackError)", _refuse),
    ("long message", _babble),
    ("memory", _take_memory),
    ("MemoryError", _take_too_much),
    ("output on stderr", _print),
    ("wrong result", _wrong),
    ("crash", _crash),
    ("equal", lambda: EQUAL),
)
"""What the campaign must say of each case, and what the case does."""


class Planted:
    """Case after case, the entries of `FAULTS`."""

    name = "planted"
    errors = (PackError,)

    def prepare(self, folder: Path) -> None:
        """There is nothing to prepare."""

    def make(self, rng: Random, index: int) -> Case:
        return Case("nothing", {"input": rng.randbytes(4)}, str(index))

    def run(self, case: Case) -> str:
        return FAULTS[int(case.option) % len(FAULTS)][1]()
