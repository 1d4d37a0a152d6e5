"""Every error a user can meet, each with the exit code its command ends with.

A message says what is wrong and where (file, tensor, layer); ``hint`` says what to do about it.
"""


class QPackError(Exception):
    """Base of the project's errors.

    Attributes:
        exit_code: what the process returns when this error ends it.
        hint: what the user can do, or an empty string.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(QPackError):
    """A command or setting that cannot be carried out as asked."""

    exit_code = 2


class CheckpointError(QPackError):
    """A source checkpoint that is damaged, unsafe, or not of a known architecture."""

    exit_code = 3


class PackError(QPackError):
    """A pack that is damaged, inconsistent, or written by a newer version."""

    exit_code = 3


class ImageError(QPackError):
    """An input that is not a readable image, or is larger than allowed."""

    exit_code = 4


class ResourceError(QPackError):
    """Memory, disk space or a lock that could not be had."""

    exit_code = 5


class BatchError(QPackError):
    """Some files of a batch failed; the others were finished."""

    exit_code = 6


INTERRUPTED_EXIT_CODE = 130
"""What a command returns after Ctrl-C (128 + SIGINT, as shells count it)."""
