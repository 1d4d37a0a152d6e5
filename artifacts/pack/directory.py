"""The files of a pack's directory, and the manifest that vouches for them.

Only the manifest's files are read, by their names in it, which never lead out of the directory.
What else lies there does not matter: systems, hubs and people leave files everywhere. Links are
followed wherever they point, as hub caches and people with several disks need; what a file must
hold is said by its hash.
"""

import os
import stat
from collections.abc import Collection
from itertools import islice
from pathlib import Path

from artifacts.files.hashing import sha256_of
from artifacts.pack.file_names import (
    BIT_GRID,
    HUB_NAMES,
    MANIFEST,
    README,
    SCHEDULER_FOLDER,
    VAE_FOLDER,
    is_known_file,
)
from artifacts.pack.place import check_is_pack
from schemas.errors import PackError
from schemas.json_io import MAX_JSON_BYTES, read_json_file, validate
from schemas.manifest import FORMAT_VERSION, FileRecord, Manifest
from schemas.stand_in import PEEKED_BYTES, recognise

MAX_OTHER_FILES = 1000
_UPGRADE = "upgrade this program, or build the pack again with this version"
_EDIT_GRID = "bits are changed by `qplan regrid PACK --grid edited.json -o NEW`"


def read_manifest(path: Path) -> Manifest:
    """Read and check the manifest of the pack at ``path``.

    Raises:
        PackError: there is no pack, or its manifest is malformed, damaged, or of a newer version.
    """
    check_is_pack(path)
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


def check_files(
    path: Path, manifest: Manifest, *, hashes: bool, without: Collection[str] = ()
) -> None:
    """Check that the manifest's files are there, and are what it says.

    JSON files are small, and a changed number in them is a valid one: their hashes are always
    compared. The model card may be edited by anyone; packs of older programs list it.

    Args:
        path: of the pack.
        manifest: of the pack.
        hashes: compare those of the other files too, which reads all of them.
        without: names of files that may be anything.

    Raises:
        PackError: names the first file that is missing, or is something else.
    """
    if BIT_GRID not in manifest.files:
        raise PackError(f"{BIT_GRID} is missing in {MANIFEST}")
    names = [name for name in checked_files(manifest) if name not in without]
    records = {name: manifest.files[name] for name in names}
    for name, record in records.items():
        if not is_known_file(name):
            raise PackError(f"{name}: not a file of a pack")
        _check_size(path, name, record)
    for name, record in records.items():
        # One that is too long is refused, unread, by whoever reads it.
        small = name.endswith(".json") and record.bytes <= MAX_JSON_BYTES
        if (hashes or small) and _sha256(path, name) != record.sha256:
            raise _changed(name, f"content does not match its SHA-256 in {MANIFEST}")


def checked_files(manifest: Manifest) -> list[str]:
    """Names of the files that a manifest vouches for, sorted."""
    return sorted(name for name in manifest.files if name != README)


def other_files(path: Path) -> list[str]:
    """Names in a pack's directory that the format does not have, sorted; folders end in ``/``.

    What hubs add is not among them. At most `MAX_OTHER_FILES` entries of a folder are looked at.

    Raises:
        PackError: a folder cannot be listed.
    """
    found = []
    for prefix in ("", f"{VAE_FOLDER}/", f"{SCHEDULER_FOLDER}/"):
        folder = path / prefix
        if prefix and not folder.is_dir():
            continue
        try:
            entries = [(entry.name, entry.is_dir()) for entry in _entries(folder)]
        except OSError as cause:
            raise PackError(f"{folder}: cannot be read: {cause.strerror or cause}") from cause
        for entry_name, is_folder in entries:
            name = prefix + entry_name
            known = name == MANIFEST or is_known_file(name) or entry_name in HUB_NAMES
            if not known and name not in (VAE_FOLDER, SCHEDULER_FOLDER):
                found.append(f"{name}/" if is_folder else name)
    return sorted(found)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(islice(entries, MAX_OTHER_FILES))


def _check_size(path: Path, name: str, record: FileRecord) -> None:
    try:
        status = (path / name).stat()
    except FileNotFoundError:
        raise PackError(f"{name} is missing") from None
    except OSError as cause:
        raise PackError(f"{name}: cannot be read: {cause.strerror or cause}") from cause
    if not stat.S_ISREG(status.st_mode):
        raise PackError(f"{name}: not a regular file")
    if status.st_size != record.bytes:
        other = _stand_in(path / name)
        if other is not None:
            raise PackError(f"{name}: {other[0]}, not the file itself", hint=other[1])
        raise _changed(
            name, f"{record.bytes} bytes expected by {MANIFEST}, the file has {status.st_size}"
        )


def _stand_in(file: Path) -> tuple[str, str] | None:
    try:
        with file.open("rb") as opened:
            return recognise(opened.read(PEEKED_BYTES))
    except OSError:
        return None


def _changed(name: str, what: str) -> PackError:
    return PackError(f"{name}: {what}", hint=_EDIT_GRID if name == BIT_GRID else "")


def _sha256(path: Path, name: str) -> str:
    try:
        return sha256_of(path / name)
    except OSError as cause:
        raise PackError(f"{name}: cannot be read: {cause.strerror or cause}") from cause
