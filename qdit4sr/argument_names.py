"""Errors of the commands' settings, in the words of who calls a function."""

import contextlib
import re
from collections.abc import Iterator

from schemas.errors import QPackError

_OPTION = re.compile(r"(?<![^\s(`])--([a-z][a-z0-9]*(?:-[a-z0-9]+)*)")
"""At the beginning of a word: names of files may have dashes inside."""


@contextlib.contextmanager
def in_python_terms(**names: str) -> Iterator[None]:
    """Have errors of the block name arguments where they name options of the commands.

    Args:
        names: option without dashes -> the argument, where that is not called alike.
    """

    def renamed(text: str) -> str:
        return _OPTION.sub(lambda found: names.get(found[1], found[1].replace("-", "_")), text)

    try:
        yield
    except QPackError as error:
        error.args = (renamed(str(error)), *error.args[1:])
        error.hint = renamed(error.hint)
        raise
