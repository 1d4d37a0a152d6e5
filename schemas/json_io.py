"""Strict, bounded reading and byte-stable writing of JSON.

The standard parser keeps the last of two equal keys, takes ``NaN`` and turns ``1e999`` into
infinity. Here each of those is an error, and size, nesting and the numbers of keys, containers,
texts and values are checked before anything is parsed: a parsed container takes fifty times the
memory of its two bytes, and a validator's complaint about it ten times that.
"""

import json
import math
import re
import stat
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from schemas.errors import QPackError
from schemas.stand_in import PEEKED_BYTES, recognise

MAX_JSON_BYTES = 4 * 2**20
"""Largest JSON text read. A grid of 585 layers at a thousand timesteps needs about 2 MB."""
MAX_JSON_DEPTH = 32
"""Deepest nesting read; a manifest has five levels."""
MAX_JSON_KEYS = 100_000
"""Most keys, and most containers; the header of a tensor file has four keys for each tensor."""
MAX_JSON_VALUES = 1_000_000
"""Most values; that grid has 590,000."""
_MAX_QUOTES = 500_000
_MAX_BACKSLASHES = 100_000
_MAX_ERRORS_SHOWN = 3

Model = TypeVar("Model", bound=BaseModel)


def read_json_strict(
    data: bytes,
    *,
    where: str,
    error: type[QPackError],
    max_bytes: int = MAX_JSON_BYTES,
    max_values: int = MAX_JSON_VALUES,
) -> Any:
    """Parse UTF-8 JSON, refusing whatever two parsers could read in two ways.

    Args:
        data: the whole text.
        where: what it is, for messages (a file name).
        error: the exception type to raise.
        max_bytes: longest text accepted.
        max_values: most values accepted.

    Raises:
        QPackError: (as ``error``) too long, too many values, nested too deep, not UTF-8, malformed,
            a key twice in one object, the integer -0, a number that is not finite, or half of a
            surrogate pair.
    """
    _check_size(len(data), max_bytes, where, error)
    _check_structure(data, max_values, where, error)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    raise ValueError(f"key {key[:200]!r} appears twice")
                seen.add(key)
        return found

    def finite(text: str) -> float:
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(f"number {text[:40]} is out of range")
        return number

    def refuse(text: str) -> NoReturn:
        raise ValueError(f"{text} is not a JSON number")

    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=unique,
            parse_float=finite,
            parse_constant=refuse,
        )
        if re.search(rb"\\u[dD]", data):
            # An escape may hold half a surrogate pair: such text cannot be printed or compared.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError as cause:
        raise error(f"{where}: not valid UTF-8 text ({cause.reason})") from None  # type: ignore[attr-defined]
    except ValueError as cause:  # JSONDecodeError, and integers with thousands of digits
        raise error(f"{where}: not valid JSON: {cause}") from None
    return value


def read_json_file(
    path: Path,
    *,
    where: str,
    error: type[QPackError],
    max_bytes: int = MAX_JSON_BYTES,
    max_values: int = MAX_JSON_VALUES,
) -> Any:
    """Read a JSON file like `read_json_strict`; its size is checked before it is read.

    Raises:
        QPackError: (as ``error``) it cannot be read, or for any reason of `read_json_strict`.
    """
    try:
        # Looked at before opening, which would wait for ever on a pipe.
        if not stat.S_ISREG(path.stat().st_mode):
            raise error(f"{where}: not a regular file")
        with path.open("rb") as file:
            # One byte more than allowed tells "too long" apart without reading the rest.
            data = file.read(max_bytes + 1)
            other = recognise(data[:PEEKED_BYTES])
            if other is not None:
                raise error(f"{where}: {other[0]}, not JSON", hint=other[1])
            _check_size(max(len(data), path.stat().st_size), max_bytes, where, error)
    except OSError as cause:
        raise error(f"{where}: cannot be read: {cause.strerror or cause}") from cause
    return read_json_strict(
        data, where=where, error=error, max_bytes=max_bytes, max_values=max_values
    )


def validate(model: type[Model], value: Any, *, where: str, error: type[QPackError]) -> Model:
    """Check a parsed value against ``model``.

    Raises:
        QPackError: (as ``error``) the message names the file and the first wrong fields.
    """
    try:
        return model.model_validate(value)
    except ValidationError as cause:
        problems = cause.errors(include_url=False, include_context=False, include_input=False)
        shown = [
            f"{'.'.join(str(part)[:200] for part in problem['loc']) or 'document'}: "
            f"{_in_json_terms(problem['msg'])[:300]}"
            for problem in problems[:_MAX_ERRORS_SHOWN]
        ]
        if len(problems) > _MAX_ERRORS_SHOWN:
            shown.append(f"and {len(problems) - _MAX_ERRORS_SHOWN} more")
        raise error(f"{where}: {'; '.join(shown)}") from None


def _in_json_terms(message: str) -> str:
    """Pydantic's words, less those that only who reads this program knows."""
    plain = message.removeprefix("Value error, ")
    return re.sub(r"a valid dictionary( or instance of \w+)?", "a JSON object", plain)


def dump_json(model: BaseModel) -> bytes:
    """Write a model as JSON: keys sorted, one value a line, arrays of plain values on one line."""
    return format_json(model.model_dump(mode="json")).encode("utf-8")


def format_json(value: Any) -> str:
    """Lay a JSON value out as `dump_json` does, with a newline at the end.

    Raises:
        ValueError: the value holds NaN or an infinity.
    """
    return _layout(value, "") + "\n"


def _layout(value: Any, indent: str) -> str:
    if isinstance(value, dict) and value:
        opening, closing = "{", "}"
        items = [f"{_scalar(key)}: {_layout(value[key], indent + '  ')}" for key in sorted(value)]
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        opening, closing = "[", "]"
        items = [_layout(item, indent + "  ") for item in value]
    else:
        return _scalar(value)
    inner = f",\n{indent}  ".join(items)
    return f"{opening}\n{indent}  {inner}\n{indent}{closing}"


def _scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _check_size(size_bytes: int, max_bytes: int, where: str, error: type[QPackError]) -> None:
    if size_bytes > max_bytes:
        raise error(f"{where}: {size_bytes} bytes of JSON, more than the limit of {max_bytes}")


def _check_structure(data: bytes, max_values: int, where: str, error: type[QPackError]) -> None:
    """Refuse too much of anything, and deep nesting, without a Python loop over the text.

    What is left after escapes and strings are dropped is structure: commas and colons are counted,
    and of the brackets, each pass removes the innermost pairs. A backslash outside a string is a
    syntax error, so up to the first syntax error this sees the same strings as the parser.
    """
    # First, because dropping strings makes a list of what lies between them.
    for sign, most in ((b'"', _MAX_QUOTES), (b"\\", _MAX_BACKSLASHES)):
        if (count := data.count(sign)) > most:
            raise error(
                f"{where}: {count} characters {sign.decode()} in JSON, more than the limit of"
                f" {most}"
            )
    without_strings = re.sub(rb'"[^"]*"', b"", re.sub(rb"\\.", b"", data, flags=re.DOTALL))
    signs = without_strings.translate(None, bytes(set(range(256)) - set(b"[]{}:,")))
    for what, count, most in (
        ("keys", signs.count(b":"), MAX_JSON_KEYS),
        ("containers", signs.count(b"[") + signs.count(b"{"), MAX_JSON_KEYS),
        ("values", signs.count(b","), max_values),
    ):
        if count > most:
            raise error(f"{where}: {count} {what} in JSON, more than the limit of {most}")
    # Python reads it as the integer 0, others as a float.
    if re.search(rb"-0(?![0-9.eE])", without_strings):
        raise error(f"{where}: -0 in JSON; write 0, or -0.0")
    brackets = signs.translate(bytes.maketrans(b"{}", b"[]"), b":,")
    for _ in range(MAX_JSON_DEPTH):
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise error(
            f"{where}: not valid JSON: brackets do not match, or nest deeper than {MAX_JSON_DEPTH}"
        )
