"""The base model as one folder, whatever files it comes in.

A folder is taken as it is. Single files are put together in a temporary folder of the same layout:
the autoencoder under diffusers' names, text encoders as links with the configuration that their
tensors show.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from runtime.base.encoder_files import add_encoder
from runtime.base.files import BaseFiles
from runtime.base.linking import link
from runtime.base.tokenizer_folders import add_tokenizers
from runtime.base.vae_file import write_vae
from runtime.prompts.encoders import ENCODER_FOLDERS
from schemas.errors import CheckpointError, ResourceError, UsageError
from schemas.places import absent

_ENCODER_OPTIONS = "--clip-l, --clip-g and --t5xxl"


@contextlib.contextmanager
def base_folder(files: BaseFiles) -> Iterator[Path | None]:
    """Give the folder of a base model, or None where none is named.

    Args:
        files: what the user named.

    Raises:
        UsageError: only some of the text encoders are named, or no vocabularies for them.
        CheckpointError: a file is missing or damaged, or is another model's.
        ResourceError: the temporary folder cannot be written.
    """
    named = [file for file in files.encoders if file is not None]
    if named and len(named) != len(files.encoders):
        raise UsageError(f"{_ENCODER_OPTIONS} go together: {len(named)} of them are given")
    if files.tokenizers is not None and not named:
        raise UsageError(f"--tokenizers goes with {_ENCODER_OPTIONS}")
    if files.base is not None and not files.base.exists():
        message, hint = absent(files.base, "file or folder")
        raise CheckpointError(message, hint=hint)
    if not named and (files.base is None or not files.base.is_file()):
        yield files.base
        return
    with tempfile.TemporaryDirectory(prefix="qdit4sr-base-") as name:
        folder = Path(name)
        try:
            _assemble(folder, files)
        except OSError as cause:
            raise ResourceError(
                f"{folder}: the base model could not be put together ({cause.strerror or cause})"
            ) from cause
        yield folder


def _assemble(folder: Path, files: BaseFiles) -> None:
    if files.base is not None and files.base.is_file():
        write_vae(files.base, folder)
    elif files.base is not None:
        _link_parts(files.base, folder)
    # In the order of ENCODER_FOLDERS, whose first half are the encoders themselves.
    for part, file in zip(ENCODER_FOLDERS, files.encoders, strict=False):
        if file is not None:
            add_encoder(folder / part, file)
    if files.clip_l is not None:
        add_tokenizers(folder, files.tokenizers or files.base)


def _link_parts(base: Path, folder: Path) -> None:
    """Take over what a folder has beside text encoders."""
    for entry in sorted(base.iterdir()):
        if entry.name not in ENCODER_FOLDERS:
            link(entry, folder / entry.name)
