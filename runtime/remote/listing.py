"""Which images lie in a folder behind a URL. One listing serves a folder of any size."""

from pathlib import Path

from runtime.images.folder import INPUT_SUFFIXES, FolderContent, no_images
from runtime.remote.place import RemotePath, remote_errors


def scan_remote(folder: RemotePath, *, recursive: bool = False) -> FolderContent[RemotePath]:
    """`runtime.images.folder.scan_folder` of a folder behind a URL.

    Raises:
        UsageError: there is no image in it.
        ResourceError: it cannot be listed.
    """
    with remote_errors(folder):
        store = folder.store
        names = store.find(folder.url, maxdepth=None if recursive else 1)
        files = sorted(RemotePath(store.unstrip_protocol(name)) for name in names)
    shown = [file for file in files if not _hidden(subfolder(file, folder) / file.name)]
    images = tuple(file for file in shown if file.suffix.lower() in INPUT_SUFFIXES)
    skipped = tuple(file for file in shown if file.suffix.lower() not in INPUT_SUFFIXES)
    content = FolderContent(images, skipped)
    if not images:
        raise no_images(folder, content.note)
    return content


def matches(pattern: RemotePath) -> list[RemotePath]:
    """Files that a URL with ``*``, ``?`` or ``[`` matches; ``**`` stands for any folders."""
    with remote_errors(pattern):
        store = pattern.store
        found = store.glob(pattern.url, detail=True)
        names = [name for name, facts in found.items() if facts["type"] == "file"]
        files = sorted(RemotePath(store.unstrip_protocol(name)) for name in names)
    return [file for file in files if not file.name.startswith(".")]


def subfolder(file: RemotePath, folder: RemotePath) -> Path:
    """Where ``file`` lies in ``folder``, which it begins with."""
    return Path(file.parent.url[len(folder.url) :].lstrip("/"))


def _hidden(inside: Path) -> bool:
    return any(part.startswith(".") for part in inside.parts)
