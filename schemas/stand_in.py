"""What stands in place of a file whose download went wrong, told by its first bytes."""

PEEKED_BYTES = 512
"""How much of a file `recognise` looks at."""


def recognise(start: bytes) -> tuple[str, str] | None:
    """Name what a file is instead of what was asked for, and what to do about it.

    Args:
        start: the first bytes of the file, at most `PEEKED_BYTES`.

    Returns:
        Both in words, or None where it may be what it should be.
    """
    text = start[:PEEKED_BYTES].lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return "a Git-LFS pointer", "fetch the real file with `git lfs pull`"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page", "the download failed; fetch the file itself"
    if start.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        return "a picture", "name another file"
    return None
