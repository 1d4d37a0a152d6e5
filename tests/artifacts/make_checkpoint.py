"""A tiny source checkpoint of random weights, as the files that people have."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.layout import POSITION_TABLE, tensor_shapes
from artifacts.dit4sr.position_table import sincos_table
from tests.artifacts.make_pack import TINY

WEIGHTS = "diffusion_pytorch_model.safetensors"
INDEX = f"{WEIGHTS}.index.json"

State = dict[str, Tensor]


def random_state(
    config: TransformerConfig = TINY,
    *,
    dtype: torch.dtype = torch.bfloat16,
    table: bool = True,
    seed: int = 0,
) -> State:
    """Normal values; the layers' spreads differ from 0.01 to 0.1, so that bits can follow them."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for index, (name, shape) in enumerate(tensor_shapes(config).items()):
        values = torch.randn(shape, generator=generator) * 0.01 * (1 + index % 10)
        state[name] = values.to(dtype)
    state[POSITION_TABLE] = sincos_table(config).to(dtype)
    if not table:
        del state[POSITION_TABLE]
    return state


def write_file(path: Path, state: Mapping[str, Tensor]) -> Path:
    """One bare ``.safetensors`` file."""
    save_file(dict(state), path)
    return path


def write_folder(
    path: Path,
    state: Mapping[str, Tensor],
    config: TransformerConfig = TINY,
    *,
    shards: int = 1,
) -> Path:
    """A diffusers folder: ``transformer/`` with ``config.json``, and one file or several."""
    folder = path / "transformer"
    folder.mkdir(parents=True)
    content = {"_class_name": "DiT4SR", **config.model_dump(mode="json")}
    (folder / "config.json").write_text(json.dumps(content))
    if shards == 1:
        save_file(dict(state), folder / WEIGHTS)
        return path
    names, weight_map = sorted(state), {}
    for index in range(shards):
        file_name = f"diffusion_pytorch_model-{index + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: state[name] for name in names[index::shards]}
        save_file(part, folder / file_name)
        weight_map.update(dict.fromkeys(part, file_name))
    write_index(folder, weight_map)
    return path


def write_index(folder: Path, weight_map: Mapping[str, str]) -> None:
    """The index that joins the shards of ``folder``."""
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict(weight_map)}))
