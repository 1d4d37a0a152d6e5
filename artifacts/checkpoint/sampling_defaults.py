"""How a model is sampled unless told otherwise: its family's settings, or those beside it."""

from pathlib import Path

from schemas.errors import CheckpointError
from schemas.json_io import read_json_file, validate
from schemas.manifest import SamplingDefaults

SAMPLING_FILE = "sampling.json"
"""Sampling defaults beside a checkpoint, for models that are not sampled as their family is."""


def read_sampling_defaults(folder: Path | None, family: SamplingDefaults) -> SamplingDefaults:
    """The defaults in ``folder``, or those of the ``family`` where there is no folder or no file.

    Raises:
        CheckpointError: the file is not what it should be.
    """
    file = None if folder is None else folder / SAMPLING_FILE
    if file is None or not file.is_file():
        return family
    content = read_json_file(file, where=str(file), error=CheckpointError)
    return validate(SamplingDefaults, content, where=str(file), error=CheckpointError)
