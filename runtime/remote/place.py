"""Files and folders behind URLs, with the few things of a path that a batch needs.

`fsspec` knows the protocols; those with a package of their own (s3fs, gcsfs, ...) say which where
it is missing. Nothing heavy is imported before a URL is met.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from schemas.error_text import one_line
from schemas.errors import ImageError, QPackError, ResourceError, UsageError

_URL = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_WEB = {"http", "https", "ftp"}
"""Pages are no folders, and nothing is written there: a web address is told as one."""


@dataclass(frozen=True, order=True)
class RemotePath:
    """A file or folder behind a URL.

    Attributes:
        url: in full, without a slash at its end.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def _path(self) -> PurePosixPath:
        return PurePosixPath(self.url.partition("://")[2])

    @property
    def name(self) -> str:
        """The last part."""
        return self._path.name

    @property
    def stem(self) -> str:
        """The last part without its extension."""
        return self._path.stem

    @property
    def suffix(self) -> str:
        """The last part's extension, with its dot."""
        return self._path.suffix

    @property
    def parent(self) -> "RemotePath":
        """The folder that this lies in."""
        return RemotePath(self.url.rpartition("/")[0])

    def __truediv__(self, inside: str | Path) -> "RemotePath":
        below = Path(inside).as_posix()
        return self if below == "." else RemotePath(f"{self.url}/{below}")

    @property
    def store(self) -> Any:
        """The file system, as fsspec has it.

        Raises:
            UsageError: there is no such protocol, or its package is missing.
            ResourceError: it cannot be reached.
        """
        import fsspec.core  # noqa: PLC0415

        try:
            with remote_errors(self):
                return fsspec.core.url_to_fs(self.url)[0]
        except (ValueError, ImportError) as cause:
            raise UsageError(f"{self.url}: {one_line(cause)}") from cause

    @property
    def at_once(self) -> bool:
        """Whether a file appears whole there without a name on its way: in object stores."""
        return self.url.partition("://")[0].lower() in _OBJECT_STORES

    def exists(self) -> bool:
        """Whether there is something."""
        with remote_errors(self):
            return bool(self.store.exists(self.url))

    def is_dir(self) -> bool:
        """Whether it is a folder, or the beginning of other names."""
        with remote_errors(self):
            return bool(self.store.isdir(self.url))


_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "r2", "hf"}

Place = Path | RemotePath
"""Where a file is, on this machine or behind a URL."""


def as_place(text: str) -> Place:
    """A URL, or a path of this machine.

    Raises:
        UsageError: there is no such protocol, or its package is missing.
    """
    match = _URL.match(text)
    if match is None or match[1].lower() in _WEB:
        return Path(text)
    place = RemotePath(text.rstrip("/"))
    # As the file system writes it: its listings are compared with it.
    return RemotePath(place.store.unstrip_protocol(place.store._strip_protocol(text.rstrip("/"))))


def identity(place: Place) -> str:
    """What makes two places one; links stay links."""
    return place.url if isinstance(place, RemotePath) else os.path.abspath(place)  # noqa: PTH100


@contextmanager
def remote_errors(place: RemotePath) -> Iterator[None]:
    """Turn what file systems raise into typed errors that name the URL.

    Raises:
        ImageError: there is no such file.
        ResourceError: anything else that a server or a network may answer.
        UsageError: it may not be read or written, which is so for all files of a batch.
    """
    try:
        yield
    except (QPackError, ImportError, ValueError, MemoryError):
        raise
    except FileNotFoundError as cause:
        raise ImageError(f"{place}: no such file") from cause
    except PermissionError as cause:
        raise UsageError(
            f"{place}: may not be read or written ({one_line(cause)})",
            hint="credentials are taken as the protocol's own tools take them",
        ) from cause
    except Exception as cause:  # of every library that speaks a protocol, its own
        raise ResourceError(
            f"{place}: {type(cause).__name__}: {one_line(cause)}",
            hint="the same command goes on from here",
        ) from cause
