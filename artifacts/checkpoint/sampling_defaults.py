"""How a model is sampled unless told otherwise: DiT4SR's settings, or those beside a checkpoint."""

from pathlib import Path

from schemas.errors import CheckpointError
from schemas.json_io import read_json_file, validate
from schemas.manifest import SamplingDefaults

SAMPLING_FILE = "sampling.json"
"""Sampling defaults beside a checkpoint, for models that are not sampled the way DiT4SR is."""

DIT4SR_SAMPLING = SamplingDefaults(
    steps=40, guidance=8.0, shift=3.0, tile_latent=64, overlap_latent=24, min_side_px=512
)
"""The published settings of DiT4SR."""


def read_sampling_defaults(folder: Path | None) -> SamplingDefaults:
    """The defaults in ``folder``, or DiT4SR's where there is no folder or no file.

    Raises:
        CheckpointError: the file is not what it should be.
    """
    file = None if folder is None else folder / SAMPLING_FILE
    if file is None or not file.is_file():
        return DIT4SR_SAMPLING
    content = read_json_file(file, where=str(file), error=CheckpointError)
    return validate(SamplingDefaults, content, where=str(file), error=CheckpointError)
