"""Whether a checkpoint is the one that a pack was made from."""

from artifacts.checkpoint.reader import Checkpoint
from schemas.errors import UsageError
from schemas.manifest import Manifest


def check_is_source(checkpoint: Checkpoint, manifest: Manifest) -> None:
    """Compare the hashes of a checkpoint's files, which are read in full, with a manifest's.

    Raises:
        CheckpointError: a file cannot be read.
        UsageError: the pack was made from another checkpoint.
    """
    wanted = {file.sha256 for file in manifest.source.files}
    if {file.sha256 for file in checkpoint.source_files()} != wanted:
        files = ", ".join(file.name for file in manifest.source.files)
        raise UsageError(f"{checkpoint.path}: the pack was made from another checkpoint ({files})")
