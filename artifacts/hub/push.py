"""A pack onto the hub: all of it in one commit, and what arrived compared with the manifest."""

from dataclasses import dataclass
from typing import Any

from artifacts.hub.client import hub_client, hub_errors
from artifacts.hub.names import HubName
from artifacts.pack.directory import checked_files
from artifacts.pack.file_names import MANIFEST, README, is_known_file
from artifacts.pack.reader import Pack
from schemas.errors import ResourceError


@dataclass(frozen=True)
class Pushed:
    """What became of a pack.

    Attributes:
        url: of the commit.
        commit: its hash, a revision to load the pack by.
        files: how many files the pack has there, its model card included.
        bytes: their sizes together.
    """

    url: str
    commit: str
    files: int
    bytes: int


def push_pack(
    pack: Pack,
    name: HubName,
    card: str,
    *,
    private: bool = False,
    token: str | None = None,
    message: str | None = None,
) -> Pushed:
    """Upload a pack, creating the repository and the branch where they are missing.

    Files of an older pack that this one does not have go in the same commit, so that a revision is
    one pack or the other.

    Args:
        pack: verified.
        name: where to; its revision is a branch.
        card: the model card, in place of the pack's own.
        private: of a repository that is created.
        token: of the hub; None for the client's own, ``HF_TOKEN`` or a login.
        message: of the commit.

    Raises:
        UsageError: the hub's client is not installed, or the hub refuses name, card or token.
        PackError: the repository cannot be seen.
        ResourceError: the hub cannot be reached, or holds something else afterwards.
    """
    client = hub_client()
    api = client.HfApi(token=token, library_name="qdit4sr")
    contents: dict[str, Any] = {
        file: str(pack.path / file) for file in (MANIFEST, *checked_files(pack.manifest))
    }
    contents[README] = card.encode()
    with hub_errors(name):
        api.create_repo(name.repository, private=private or None, exist_ok=True)
        if name.revision is not None:
            api.create_branch(name.repository, branch=name.revision, exist_ok=True)
        there = api.list_repo_files(name.repository, revision=name.revision)
        operations = [
            client.CommitOperationAdd(file, content) for file, content in contents.items()
        ]
        operations += [
            client.CommitOperationDelete(file)
            for file in there
            if is_known_file(file) and file not in contents
        ]
        commit = api.create_commit(
            name.repository,
            operations,
            commit_message=message or f"Pack {pack.manifest.checksum[:16]}",
            revision=name.revision,
        )
        stored = api.get_paths_info(
            name.repository, sorted(pack.manifest.files), revision=commit.oid
        )
    _check_arrived(pack, name, stored)
    sizes = [pack.manifest.files[file].bytes for file in checked_files(pack.manifest)]
    total = sum(sizes) + (pack.path / MANIFEST).stat().st_size + len(card.encode())
    return Pushed(str(commit.commit_url), str(commit.oid), len(contents), total)


def _check_arrived(pack: Pack, name: HubName, stored: list[Any]) -> None:
    """Compare sizes, and of large files hashes, that the hub gives with the manifest's."""
    found = {file.path: file for file in stored}
    for file in checked_files(pack.manifest):
        record, there = pack.manifest.files[file], found.get(file)
        same = there is not None and there.size == record.bytes
        if same and there is not None and there.lfs is not None:
            same = there.lfs.sha256 == record.sha256
        if not same:
            raise ResourceError(f"{name}: {file} did not arrive whole", hint="push it again")
