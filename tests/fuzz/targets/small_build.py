"""A checkpoint of one block, and builds of it: what the targets on the planner's side share."""

import json
import shutil
from pathlib import Path

from artifacts.checkpoint.reader import Checkpoint, open_checkpoint
from artifacts.pack.reader import Pack, verify_pack
from planner.build.base_model import find_base_model
from planner.build.build import build
from planner.recipes import recipe_settings
from planner.settings import BuildSettings
from planner.target import parse_target
from schemas.calibration import Calibration
from tests.artifacts.make_checkpoint import random_state, write_folder
from tests.artifacts.make_pack import TINY, write_autoencoder
from tests.planner.calibration_setup import SAMPLING
from tests.planner.make_base import make_embeddings

CONFIG = TINY.model_copy(update={"num_layers": 1})
SETTINGS: BuildSettings = recipe_settings(
    "q-dit4sr", parse_target("W4A4"), global_rank=2, local_rank=2
)


def write_checkpoint(folder: Path, *, shards: int = 1) -> Path:
    """A whole pipeline: transformer, autoencoder, scheduler, prompts, sampling defaults."""
    path = write_folder(folder, random_state(CONFIG), CONFIG, shards=shards)
    write_autoencoder(path / "vae", latent_channels=CONFIG.in_channels)
    (path / "scheduler").mkdir()
    (path / "scheduler" / "scheduler_config.json").write_text('{"shift": 3.0}')
    make_embeddings(path / "prompts.safetensors")
    (path / "sampling.json").write_text(json.dumps(SAMPLING))
    return path


def build_pack(
    source: Checkpoint | Path, output: Path, calibration: Calibration | None = None
) -> Pack:
    """Build and verify a pack at ``output``, in place of the one before."""
    checkpoint = open_checkpoint(source) if isinstance(source, Path) else source
    base = find_base_model(checkpoint, None)
    build(checkpoint, output, SETTINGS, base, calibration=calibration, force=True)
    return verify_pack(output)


def network_files(pack: Path) -> dict[str, bytes]:
    """What a pack computes with: tensors and grid."""
    names = ("transformer.safetensors", "bit_grid.json")
    return {name: (pack / name).read_bytes() for name in names}


def clear(folder: Path) -> None:
    """Remove everything that lies in a folder."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
