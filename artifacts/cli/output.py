"""What commands print: nothing from a file reaches the terminal raw.

A tensor's name, a note in a manifest, a file's name may hold whatever a terminal obeys: escape
sequences move the cursor, rename the window, or hide a line. Everything a command shows goes
through `say`, `tell`, `print_json` or a `Terminal`, and comes out as text. Nothing heavy is
imported.
"""

import json
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from schemas.error_text import printable, printable_lines

if TYPE_CHECKING:
    from artifacts.cli.terminal import Terminal


def say(text: str) -> None:
    """Print a result on stdout."""
    print(printable_lines(text))


def tell(text: str) -> None:
    """Print one line about what is going on, on stderr; where nobody can be told, nothing."""
    try:
        print(printable(text), file=sys.stderr)
    except OSError:
        abandon_stderr()


def abandon_stderr() -> None:
    """Send everything else that is told nowhere: its disk is full, or its reader is gone.

    What a command tells is not what it is for, so that the work goes on.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stderr.fileno())
    os.close(nowhere)


def print_json(content: Any) -> None:
    """Print ``content`` on stdout, laid out like every JSON file of the project.

    Characters that a terminal obeys stand there as JSON's escapes, so that a reader of the JSON
    gets them as they are.

    Raises:
        ValueError: the content holds NaN or an infinity.
    """
    from schemas.json_io import format_json

    text = format_json(content)
    if not text.isascii():
        text = "".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text)
    print(text.replace("\x7f", "\\u007f"), end="")


def terminal(*, piped_width: int | None = None) -> "Terminal":
    """Where tables are printed: stdout.

    Args:
        piped_width: columns where stdout is no terminal and so has no width of its own; None for
            rich's choice.
    """
    from artifacts.cli.terminal import Terminal

    return Terminal(width=None if is_terminal(sys.stdout) else piped_width, highlight=False)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody looks at ``stream``; Python has None for one that was closed."""
    return stream is not None and stream.isatty()
