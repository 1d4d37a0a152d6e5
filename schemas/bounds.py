"""Bounds on the items of a field, checked before any item is looked at.

Pydantic's own ``max_length`` comes after the items, and every wrong item of millions gets an error
object of its own, or one for each type that it might have had: a few megabytes of hostile JSON
would cost gigabytes. (For the same reason sequences are validated with `pydantic.FailFast`.)
"""

from typing import Any

from pydantic import BeforeValidator


def at_most(count: int) -> BeforeValidator:
    """A validator for a list, tuple or dict field: refuses more than ``count`` items."""

    def check(value: Any) -> Any:
        if isinstance(value, list | tuple | dict) and len(value) > count:
            raise ValueError(f"{len(value)} entries, more than the limit of {count}")
        return value

    return BeforeValidator(check)


def plain_or_list(count: int) -> BeforeValidator:
    """A validator for plain values and lists of them: one error for all that is wrong in one."""

    def check(value: Any) -> Any:
        items = value if isinstance(value, list) else [value]
        if len(items) > count:
            raise ValueError(f"{len(items)} entries, more than the limit of {count}")
        if any(isinstance(item, list | dict) for item in items):
            raise ValueError("must be a text, a number, true, false, null, or a list of those")
        return value

    return BeforeValidator(check)
