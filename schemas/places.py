"""Paths that lead nowhere, in the words of whoever typed them."""

import re
from pathlib import Path

# `Path` has made one slash of two.
_ADDRESS = re.compile(r"(https?|ftp|s3|gs|hf):/+(?=[^/])", re.IGNORECASE)


def absent(path: Path, what: str) -> tuple[str, str]:
    """The message, and the hint, about a path where nothing is.

    Args:
        path: as the command line gave it.
        what: what should be there, such as ``file or folder``.
    """
    text = str(path)
    if _ADDRESS.match(text):
        shown = _ADDRESS.sub(r"\1://", text, count=1)
        return f"{shown}: a web address, not a {what}", "download it, then name the copy"
    return f"{text}: no such {what}", ""
