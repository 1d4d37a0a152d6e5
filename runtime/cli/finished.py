"""Whether a result that is there was made as the command would make it, also behind a URL."""

import contextlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from runtime.cli.record import Records
from runtime.images.batch import Job
from runtime.images.made_with import State, state_of
from runtime.remote.copies import local_copy
from runtime.remote.place import Place, RemotePath, remote_errors

HEAD_BYTES = 64 * 1024
"""What is fetched of a result to see how it was made: in PNG and JPEG that comes before pixels."""


def state_of_result(job: Job, records: Records) -> tuple[State, str]:
    """As `runtime.images.made_with.state_of`, of a job whose result exists.

    An input behind a URL is not fetched for it: it counts as another one where it is newer than its
    result. A result behind one is there whole or not at all, so that its beginning says enough.

    Raises:
        ResourceError: what is behind a URL cannot be read.
    """
    if isinstance(job.source, Path):
        made_with, but = records.of(job.source, job.source), frozenset[str]()
    elif _is_newer(job.source, job.output):
        return "different", "input"
    else:
        made_with, but = records.of(job.source, None), frozenset({"input"})
    if isinstance(job.output, Path):
        return state_of(job.output, made_with, but=but)
    with _head(job.output) as file:
        found = state_of(file, made_with, but=but, whole=False)
    if found[0] in {"finished", "different"}:
        return found
    with local_copy(job.output) as file:
        return state_of(file, made_with, but=but)


@contextmanager
def _head(place: RemotePath) -> Iterator[Path]:
    """The beginning of what is behind a URL, as a file."""
    with remote_errors(place):
        start = place.store.cat_file(place.url, start=0, end=HEAD_BYTES)
    with tempfile.TemporaryDirectory(prefix="qrun-") as folder:
        file = Path(folder) / place.name
        file.write_bytes(start)
        yield file


def _is_newer(source: Place, output: Place) -> bool:
    """Whether an input was changed after its result; not where a file system does not tell."""
    with contextlib.suppress(NotImplementedError, KeyError):
        return _changed(source) > _changed(output)
    return False


def _changed(place: Place) -> datetime:
    if isinstance(place, Path):
        return datetime.fromtimestamp(place.stat().st_mtime, UTC)
    found: datetime = place.store.modified(place.url)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
