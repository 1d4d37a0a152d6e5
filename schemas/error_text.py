"""Errors as people and processes read them: an exit code, and one or two lines.

Nothing heavy is imported here, because ``--help`` goes through this module too.
"""

import errno

from schemas.errors import INTERRUPTED_EXIT_CODE, QPackError, ResourceError, UsageError

UNEXPECTED_EXIT_CODE = 1
"""What a command returns after an error that no typed error describes: a bug, or a torn setup."""

_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
_UNUSABLE_PATH = {
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
}
"""What is wrong with the path that was given, and not with the machine."""

_SHOWN_PATH = 200


def describe_error(error: BaseException) -> tuple[int, list[str]]:
    """Return the exit code of ``error`` and the lines for stderr (one, or two with a hint).

    The lines are printable, whatever names of files, tensors or layers they hold.
    """
    code, lines = _describe(error)
    return code, [printable(line) for line in lines]


def _describe(error: BaseException) -> tuple[int, list[str]]:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED_EXIT_CODE, [f"interrupted: {error}" if str(error) else "interrupted"]
    if isinstance(error, QPackError):
        lines = [f"error: {one_line(error)}"]
        if error.hint:
            lines.append(f"hint: {error.hint}")
        return error.exit_code, lines
    # torch's own class is recognised by its name, because importing torch here would take seconds.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return ResourceError.exit_code, [f"error: out of memory ({one_line(error)})"]
    if isinstance(error, OSError) and error.errno in _FULL_DISK:
        return ResourceError.exit_code, [f"error: {one_line(error)}"]
    if isinstance(error, OSError) and error.errno in _UNUSABLE_PATH and error.filename is not None:
        return UsageError.exit_code, [f"error: {_shortened(error.filename)}: {error.strerror}"]
    return UNEXPECTED_EXIT_CODE, [
        f"error: {type(error).__name__}: {one_line(error)} (--debug shows the traceback)"
    ]


def one_line(error: BaseException) -> str:
    """The text of ``error``, printable, every run of white space one space; or its type's name."""
    return printable(" ".join(str(error).split())) or type(error).__name__


def printable(text: str) -> str:
    r"""``text`` with every character that a terminal obeys, or cannot show, as an escape.

    An escape character becomes ``\x1b``, a right-to-left override ``\u202e``; a byte of a file's
    name that is no UTF-8 becomes that byte, ``\xff``.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def printable_lines(text: str) -> str:
    """`printable`, line by line."""
    return "\n".join(map(printable, text.split("\n")))


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that it could not decode
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def _shortened(path: object) -> str:
    """``path`` on one line; the middle of one that is too long to be read is left out."""
    text = " ".join(str(path).split())
    if len(text) <= _SHOWN_PATH:
        return text
    half = _SHOWN_PATH // 2
    return f"{text[:half]}…{text[-half:]}"
