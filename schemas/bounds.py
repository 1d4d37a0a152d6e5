"""A bound on how many items a field may have, checked before any item is looked at.

Pydantic's own ``max_length`` comes after the items, and every wrong item of millions gets an error
object of its own: a few megabytes of hostile JSON would cost gigabytes.
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
