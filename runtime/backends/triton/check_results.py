"""Results of `self_check` in the user's cache, ``qdit4sr/triton-checks.json``.

    {
      "version": 1,
      "checks": {
        "<sha256 of the facts>": {"failure": null, "device": "NVIDIA H100 PCIe", "driver": "..."}
      }
    }

``failure`` is null or says why. The file is a convenience: whatever is wrong with it, the result is
found anew. It may be deleted at any time; then the next run checks again.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from artifacts.files.user_cache import user_cache
from artifacts.files.whole_file import write_bytes

logger = logging.getLogger(__name__)

Facts = Mapping[str, str]
"""What a result depends on, by name."""

_VERSION = 1
_MOST_CHECKS = 64
_LARGEST_BYTES = 1 << 20
_LONGEST_FAILURE = 1000
_SHOWN = ("device", "driver", "triton", "torch")
"""Facts that stand beside a result, for people."""
_KEY = re.compile(r"[0-9a-f]{64}")
_seen: dict[str, "Result"] = {}
"""Results of this process, also where the file cannot be written."""


@dataclass(frozen=True)
class Result:
    """What a check gave: why the kernels should not be taken, or None."""

    failure: str | None


def results_file() -> Path | None:
    """Where results lie; None for a user without a home."""
    folder = user_cache()
    return None if folder is None else folder / "triton-checks.json"


def recall(facts: Facts) -> Result | None:
    """The result for these facts, or None where there is none."""
    key = _key_of(facts)
    if key not in _seen:
        entry = _read().get(key)
        if entry is None:
            return None
        _seen[key] = Result(entry["failure"])
    return _seen[key]


def remember(facts: Facts, failure: str | None) -> None:
    """Keep a result: in the file, and for this process also where that cannot be written."""
    key = _key_of(facts)
    _seen[key] = Result(failure)
    file = results_file()
    if file is None:
        return
    checks = {name: entry for name, entry in _read().items() if name != key}
    checks[key] = {"failure": failure} | {name: facts.get(name, "") for name in _SHOWN}
    newest = dict(list(checks.items())[-_MOST_CHECKS:])
    content = json.dumps({"version": _VERSION, "checks": newest}, indent=2)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, f"{content}\n".encode())
    except OSError as error:
        logger.debug("%s is not written: %s", file, error)


def forget() -> None:
    """Forget what this process has seen, not what the file holds."""
    _seen.clear()


def _read() -> dict[str, dict[str, str | None]]:
    """The file's sound entries; none where there is no such file."""
    file = results_file()
    try:
        # A pipe or a device of that name would block the reader for ever.
        if file is None or not file.is_file() or file.stat().st_size > _LARGEST_BYTES:
            return {}
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        logger.debug("%s is not read: %s", file, error)
        return {}
    checks = content.get("checks") if isinstance(content, dict) else None
    if not isinstance(checks, dict) or content.get("version") != _VERSION:
        return {}
    return {key: entry for key, entry in checks.items() if _is_sound(key, entry)}


def _is_sound(key: str, entry: object) -> bool:
    if not _KEY.fullmatch(key) or not isinstance(entry, dict) or "failure" not in entry:
        return False
    texts = [value for value in entry.values() if value is not None]
    # A failure is shown on a terminal, which obeys some of what is not printable.
    return set(entry) <= {"failure", *_SHOWN} and all(
        isinstance(text, str) and len(text) <= _LONGEST_FAILURE and text.isprintable()
        for text in texts
    )


def _key_of(facts: Facts) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
