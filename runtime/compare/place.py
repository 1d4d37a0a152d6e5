"""Where a page of comparisons may be written. Nothing heavy is imported."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from runtime.images.batch import Job
from runtime.remote.place import RemotePath, identity
from schemas.errors import UsageError

MARK = '<meta name="generator" content="qrun upscale --compare">'
"""What tells such a page from a file of somebody else's."""
_LOOK_AT_BYTES = 4096


def check_page(page: Path, jobs: Sequence[Job], *, force: bool) -> None:
    """Make sure that ``page`` can be written: a new file, or an older page of this kind.

    Raises:
        UsageError: it is no HTML file by its name, lies in no folder or one that cannot be written
            to, or would replace something else.
    """
    if page.suffix.lower() not in {".html", ".htm"}:
        raise UsageError(f"--compare {page}: the page's name ends in .html")
    if page.is_dir() or not page.absolute().parent.is_dir():
        raise UsageError(f"--compare {page}: it is a folder, or in none", hint="make the folder")
    places = [place for job in jobs for place in (job.source, job.output)]
    if any(isinstance(place, RemotePath) for place in places):
        raise UsageError(
            "--compare: the page shows files of this machine, and some of these are behind URLs",
            hint="leave it out, or copy them here first",
        )
    if str(page.absolute()) in map(identity, places):
        raise UsageError(f"--compare {page} is also an image of the batch")
    if page.exists() and not force and MARK not in _start(page):
        raise UsageError(f"--compare {page} exists, and is another file", hint="use --force")
    try:
        with tempfile.TemporaryFile(dir=page.parent):
            pass
    except OSError as error:
        raise UsageError(f"--compare {page}: cannot be written ({error.strerror})") from error


def _start(page: Path) -> str:
    with page.open("rb") as file:
        return file.read(_LOOK_AT_BYTES).decode("utf-8", "replace")
