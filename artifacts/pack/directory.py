"""The files of a pack's directory, and the manifest that vouches for them."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from artifacts.pack.contents import (
    check_difference,
)
from artifacts.pack.file_names import (
    BIT_GRID,
    HUB_NAMES,
    MANIFEST,
    README,
    SCHEDULER_FOLDER,
    VAE_FOLDER,
    is_known_file,
    sha256_of,
)
from schemas.errors import PackError
from schemas.json_io import read_json_file, validate
from schemas.manifest import FORMAT_VERSION, Manifest

_MAX_FILES = 1000
_NO_PACK = "is it a pack? A checkpoint goes to `qplan build`, or to `--full-precision`"
_UPGRADE = "upgrade this program, or build the pack again with this version"


def find_files(path: Path) -> set[str]:
    """Relative names of all files.

    Raises:
        PackError: a link points out of the directory, or something is not a file.
    """
    if not path.is_dir():
        what = "is not a directory" if path.exists() else "does not exist"
        raise PackError(f"pack {path} {what}")
    found: set[str] = set()
    root = path.resolve()
    for name, entry in _walk(path, ""):
        # Not Path.resolve, which raises on a loop of links; the stat below refuses those.
        if not Path(os.path.realpath(entry)).is_relative_to(root):
            raise PackError(
                f"{name}: a link that points out of the pack",
                hint="copy the pack with its links resolved, for example with `cp -rL`",
            )
        try:
            mode = entry.stat().st_mode
        except OSError as cause:
            raise PackError(f"{name}: cannot be read: {cause.strerror or cause}") from cause
        if not stat.S_ISREG(mode):
            raise PackError(
                f"{path}: {name}: neither a file nor a directory of a pack", hint=_NO_PACK
            )
        found.add(name)
        if len(found) > _MAX_FILES:
            raise PackError(f"pack {path} has more than {_MAX_FILES} files")
    return found


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    """Files of a pack's directory and of its known subdirectories, sorted."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as cause:
        raise PackError(f"{folder}: cannot be read: {cause.strerror or cause}") from cause
    for entry in entries:
        # A name that is not UTF-8 becomes one that can be printed; it matches no file of a pack.
        name = prefix + os.fsencode(entry.name).decode("utf-8", "backslashreplace")
        if name in HUB_NAMES:
            continue
        if name in (VAE_FOLDER, SCHEDULER_FOLDER) and entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{name}/")
        else:
            yield name, Path(entry.path)


def read_manifest(path: Path) -> Manifest:
    """Read and check the manifest of the pack at ``path``.

    Raises:
        PackError: it is missing, malformed, damaged, or of a newer version.
    """
    if not (path / MANIFEST).exists():
        raise PackError(f"{path}: there is no {MANIFEST}", hint=_NO_PACK)
    content = read_json_file(path / MANIFEST, where=MANIFEST, error=PackError)
    if not isinstance(content, dict) or content.get("format") != "qpack":
        raise PackError(f'{MANIFEST}: format is not "qpack"')
    # Before the rest is looked at: a newer layout may not fit these models at all.
    for key in ("format_version", "min_reader_version"):
        version = content.get(key)
        if type(version) is int and version > FORMAT_VERSION:
            raise PackError(
                f"{MANIFEST}: {key} is {version}, this program reads up to {FORMAT_VERSION}",
                hint=_UPGRADE,
            )
    manifest = validate(Manifest, content, where=MANIFEST, error=PackError)
    if manifest.checksum != manifest.true_checksum:
        raise PackError(f"{MANIFEST}: content does not match its checksum")
    return manifest


def check_files(path: Path, manifest: Manifest, found: set[str]) -> None:
    """Check that the files are those of the manifest, by name and size.

    Raises:
        PackError: names the first that are not.
    """
    check_difference(found - {MANIFEST}, manifest.files, "the directory", MANIFEST, "files")
    for name in sorted(manifest.files):
        if not is_known_file(name):
            raise PackError(f"{name}: not a file of a pack")
    for required in (BIT_GRID, README):
        if required not in manifest.files:
            raise PackError(f"{required} is missing")
    for name, record in sorted(manifest.files.items()):
        try:
            size = (path / name).stat().st_size
        except OSError as cause:
            raise PackError(f"{name}: cannot be read: {cause.strerror or cause}") from cause
        if size != record.bytes:
            raise PackError(
                f"{name}: {record.bytes} bytes expected by {MANIFEST}, the file has {size}"
            )


def file_sha256(path: Path, name: str) -> str:
    """SHA-256 of a file of the pack at ``path``.

    Raises:
        PackError: it cannot be read.
    """
    try:
        return sha256_of(path / name)
    except OSError as cause:
        raise PackError(f"{name}: cannot be read: {cause.strerror or cause}") from cause
