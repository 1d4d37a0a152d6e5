"""Standing in for a file or folder elsewhere."""

import shutil
from pathlib import Path


def link(target: Path, place: Path) -> None:
    """Make ``place`` stand for ``target``; a copy where the system makes no links.

    Raises:
        OSError: neither is possible.
    """
    try:
        place.symlink_to(target.absolute())
    except OSError:
        if target.is_dir():
            shutil.copytree(target, place)
        else:
            shutil.copyfile(target, place)
