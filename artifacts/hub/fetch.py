"""A pack from the hub, in the hub client's cache on this machine, every byte checked.

The manifest is fetched first and says which files make up the pack; nothing else of the repository
is. Of a branch or tag all files are those of one commit, the one it names at the time.
"""

import hashlib
import logging
from contextlib import suppress
from pathlib import Path

from artifacts.files.user_cache import user_cache
from artifacts.hub.client import hub_client, hub_errors
from artifacts.hub.names import HubName, hub_name
from artifacts.pack.directory import check_files, checked_files, read_manifest
from artifacts.pack.file_names import MANIFEST, README, is_known_file
from schemas.errors import PackError
from schemas.manifest import Manifest

logger = logging.getLogger(__name__)


def local_pack(path: Path) -> Path:
    """Where the pack that a user names lies on this machine; fetched, if it is one on the hub.

    Raises:
        PackError: there is no such pack on the hub, or what came of it is damaged.
        UsageError: the hub's client is not installed, or it refuses the name.
        ResourceError: the hub cannot be reached.
    """
    name = hub_name(path)
    return path if name is None else fetch_pack(name)


def fetch_pack(name: HubName) -> Path:
    """Fetch a pack, as far as it is not in the cache, and compare all its hashes once.

    Raises:
        PackError, UsageError, ResourceError: as `local_pack`.
    """
    client = hub_client()
    with hub_errors(name):
        first = Path(
            client.snapshot_download(
                name.repository, revision=name.revision, allow_patterns=[MANIFEST]
            )
        )
    if not (first / MANIFEST).is_file():
        raise PackError(f"{name}: there is no {MANIFEST}", hint="is this repository a pack?")
    manifest = read_manifest(first)
    strange = [file for file in checked_files(manifest) if not is_known_file(file)]
    if strange:
        raise PackError(f"{name}: {strange[0]}: not a file of a pack")
    logger.info("%s is commit %s of the hub", name, first.name)
    with hub_errors(name):
        folder = Path(
            client.snapshot_download(
                name.repository,
                revision=first.name,  # the commit: a branch may move between the two
                allow_patterns=[MANIFEST, README, *checked_files(manifest)],
            )
        )
    _check_once(folder, manifest)
    return folder


def _check_once(folder: Path, manifest: Manifest) -> None:
    """Compare all hashes of a pack, unless these very files have passed before.

    Raises:
        PackError: one differs; says what to delete, as the client takes its cache to be sound.
    """
    marker = _marker(folder, manifest)
    if marker is not None and marker.is_file():
        return
    try:
        check_files(folder, manifest, hashes=True)
    except PackError as error:
        raise PackError(
            f"{folder}: {error}", hint=f"delete {folder.parent.parent} to fetch it again"
        ) from error
    if marker is not None:
        with suppress(OSError):  # a cache is a convenience
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()


def _marker(folder: Path, manifest: Manifest) -> Path | None:
    """An empty file that says that a pack's files, as they are now, have passed.

    Its name is a hash of what tells them from others: place, size and time of each.
    """
    cache = user_cache()
    if cache is None:
        return None
    facts = [manifest.checksum]
    for name in checked_files(manifest):
        try:
            status = (folder / name).stat()
        except OSError:
            return None  # `check_files` says what is wrong with it
        facts += [str((folder / name).resolve()), f"{status.st_size} {status.st_mtime_ns}"]
    return cache / "verified" / hashlib.sha256("\n".join(facts).encode()).hexdigest()
