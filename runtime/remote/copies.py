"""Pictures behind URLs are worked on as files of this machine: fetched before, put back after."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runtime.images.batch import Job
from runtime.remote.place import Place, RemotePath, remote_errors
from schemas.errors import QPackError

_SHOWN: dict[str, str] = {}
"""Copy on this machine -> what the user calls it; for as long as the copy is there."""


@contextmanager
def local_files(job: Job) -> Iterator[tuple[Path, Path]]:
    """Files of this machine for a job's input and its result, which then goes where it belongs.

    Errors name the places that the user knows.

    Raises:
        ImageError: the input is not there.
        ResourceError: it cannot be fetched, or the result cannot be put.
    """
    with ExitStack() as stack:
        source = stack.enter_context(local_copy(job.source))
        if not isinstance(job.output, RemotePath):
            yield source, job.output
            return
        output = stack.enter_context(_named_file(job.output))
        yield source, output
        put(output, job.output)


@contextmanager
def local_copy(place: Place) -> Iterator[Path]:
    """The file itself, or a copy of what is behind a URL.

    Raises:
        ImageError: there is nothing.
        ResourceError: it cannot be fetched.
    """
    if isinstance(place, Path):
        yield place
        return
    with _named_file(place) as copy:
        with remote_errors(place):
            place.store.get_file(place.url, str(copy))
        yield copy


def put(file: Path, place: RemotePath) -> None:
    """Put a file behind a URL, where it appears whole or not at all.

    Object stores do so by themselves. Elsewhere it is written under a hidden name beside its place,
    and moved there. That name follows from the file's: what a killed command left is written over
    by the next, and moved.

    Raises:
        ResourceError: it cannot be written.
        UsageError: nothing can be written there.
    """
    with remote_errors(place):
        if place.at_once:
            place.store.put_file(str(file), place.url)
            return
        partial = place.parent / f".{place.name}.part"
        place.store.put_file(str(file), partial.url)
        place.store.mv(partial.url, place.url)


def shown(text: str) -> str:
    """``text`` with the places that the user knows, in place of copies of them."""
    for copy, place in list(_SHOWN.items()):
        text = text.replace(copy, place)
    return text


@contextmanager
def _named_file(place: RemotePath) -> Iterator[Path]:
    """A file's place in a folder of its own, under the name that it has behind the URL."""
    with tempfile.TemporaryDirectory(prefix="qrun-") as folder:
        file = Path(folder) / place.name
        _SHOWN[str(file)] = place.url
        try:
            yield file
        except QPackError as error:
            error.args = (shown(str(error)),)
            raise
        finally:
            del _SHOWN[str(file)]
