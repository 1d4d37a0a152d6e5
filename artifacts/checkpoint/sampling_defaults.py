"""How a model is sampled unless told otherwise: its family's settings, or those beside it."""

from pathlib import Path

from artifacts.family import Architecture
from schemas.errors import CheckpointError
from schemas.json_io import read_json_file, validate
from schemas.manifest import SamplingDefaults

SAMPLING_FILE = "sampling.json"
"""Sampling defaults beside a checkpoint, for models that are not sampled as their family is."""


def read_sampling_defaults(folder: Path | None, architecture: Architecture) -> SamplingDefaults:
    """The defaults in ``folder``, or the family's where there is no folder or no file.

    Raises:
        CheckpointError: the file is not what it should be, or does not fit the network.
    """
    file = None if folder is None else folder / SAMPLING_FILE
    if file is None or not file.exists():
        return architecture.sampling
    content = read_json_file(file, where=str(file), error=CheckpointError)
    defaults = validate(SamplingDefaults, content, where=str(file), error=CheckpointError)
    wrong = architecture.wrong_sampling(defaults)
    if wrong is not None:
        raise CheckpointError(f"{file}: {wrong}")
    return defaults
