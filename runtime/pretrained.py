"""Models in transformers' folders: loaded from the folder alone, whole, or not at all."""

from pathlib import Path
from typing import Any

import torch

from schemas.errors import CheckpointError

SHOWN_NAMES = 3


def load_pretrained(model_class: Any, folder: Path, part: str, dtype: torch.dtype) -> Any:
    """Load the model in ``folder / part``.

    Args:
        model_class: of transformers.
        folder: of the base model, for messages.
        part: the model's own folder in it.
        dtype: of the weights in memory.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        CheckpointError: a file is missing, damaged or another model's.
        ImportError: transformers needs a package that is not installed.
    """
    check_regular_files(folder / part)
    try:
        # Nothing may be fetched: what is not in the folder is an error.
        model, loading = model_class.from_pretrained(
            folder / part,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (ImportError, MemoryError):
        raise
    except Exception as cause:  # a damaged file raises whatever the parser at hand raises
        raise CheckpointError(f"{folder}: {part} cannot be loaded: {first_line(cause)}") from cause
    missing = sorted(loading["missing_keys"])
    if missing:
        # transformers would go on with random values in their place.
        raise CheckpointError(
            f"{folder}: {part} lacks {', '.join(missing[:SHOWN_NAMES])}"
            f" ({len(missing)} tensors in all)"
        )
    return model.eval()


def check_regular_files(folder: Path) -> None:
    """Make sure that no file of ``folder`` is a pipe or a device, which opening would wait on.

    Raises:
        CheckpointError: one is.
    """
    for entry in sorted(folder.iterdir()):
        if entry.exists() and not entry.is_file() and not entry.is_dir():
            raise CheckpointError(f"{entry}: not a regular file")


def first_line(cause: BaseException) -> str:
    """The start of a message that may run over a page."""
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return lines[0][:200]
