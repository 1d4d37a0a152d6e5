"""Writes a trained model as a diffusers folder that ``qplan`` and ``qrun`` read."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from safetensors.torch import save
from torch import nn

from artifacts.dit4sr.layout import POSITION_TABLE
from artifacts.files.whole_file import write_bytes
from runtime.dit4sr.network import DiT4SR
from runtime.prompts.named import NAMED_PROMPTS
from schemas.json_io import dump_json
from schemas.manifest import SamplingDefaults
from training.network import SHIFT, prompt_table
from training.networks import NamedNetwork
from training.prompts import NAMES

POSITIVE, NEGATIVE = "natural", "low quality"
SAMPLING = SamplingDefaults(
    steps=8,
    guidance=1.0,
    shift=SHIFT,
    tile_latent=48,
    overlap_latent=8,
    min_side_px=128,
    color_fix="none",
)

MODEL_CARD = """# {name}

A network of DiT4SR's architecture, trained from scratch with `python -m training`. {note}
It exists to try, test and compare quantization with real weights where DiT4SR's own cannot be had.

It was trained on photos from Debian packages (gcompris-qt-data, mate-backgrounds,
plasma-workspace-wallpapers, lomiri-wallpapers, opencv-doc) and on photos that scikit-image and
scikit-learn ship; `training/photos/manifest.json` names each with its licence. Most of the photos
are under the GNU GPL or Creative Commons licences; none of them is part of the weights' folder.
36 whole photos were held out, astronaut, chelsea and coffee among them.

Apache-2.0, like the project.
"""


def write_folder(
    named: NamedNetwork,
    network: DiT4SR,
    vae: AutoencoderKL,
    folder: Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write the model as a diffusers folder, with prompts and sampling defaults.

    Args:
        named: what is trained.
        network: its weights.
        vae: its autoencoder, which is cast to ``dtype``.
        folder: replaced if it exists.
        dtype: of all weights.
    """
    shutil.rmtree(folder, ignore_errors=True)
    transformer = folder / "transformer"
    transformer.mkdir(parents=True)
    write_weights(network, transformer, dtype=dtype)
    config = {"_class_name": "DiT4SR", **named.config.model_dump(mode="json")}
    (transformer / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_vae(vae.to(dtype), folder / "vae")
    FlowMatchEulerDiscreteScheduler(shift=SHIFT).save_pretrained(folder / "scheduler")
    _write_prompts(named, folder)
    sampling = SAMPLING if named.start_sigma == 1 else one_step_sampling(named.start_sigma)
    (folder / "sampling.json").write_bytes(dump_json(sampling))
    (folder / "README.md").write_text(MODEL_CARD.format(name=named.name, note=named.note))


def write_weights(
    network: nn.Module, transformer: Path, *, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write a network's weights as those of the folder ``transformer``."""
    weights = {
        name: tensor.to(dtype).contiguous()
        for name, tensor in network.state_dict().items()
        if name != POSITION_TABLE  # rebuilt at load
    }
    # Its own way of saving leaves files that nobody else may read.
    write_bytes(transformer / "diffusion_pytorch_model.safetensors", save(weights))


def write_vae(vae: AutoencoderKL, folder: Path) -> None:
    """Write an autoencoder without the path that it was read from, which diffusers keeps.

    Where ``folder`` is a link to another's, it is replaced, and the other stays.
    """
    if folder.is_symlink():
        folder.unlink()
    vae.save_pretrained(folder)
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config.pop("_name_or_path", None)
    file.write_text(json.dumps(config, indent=2) + "\n")


def one_step_sampling(start_sigma: float) -> SamplingDefaults:
    """Defaults of a network that restores in one evaluation."""
    return SAMPLING.model_copy(update={"steps": 1, "start_sigma": start_sigma})


def _write_prompts(named: NamedNetwork, folder: Path) -> None:
    table = prompt_table(named.config, named.seed)
    pair = table.pair(POSITIVE, NEGATIVE)
    halved = {name: t.bfloat16() for name, t in pair.items()}
    write_bytes(folder / "prompts.safetensors", save(halved))
    every = {
        f"{name}.{part}": getattr(table, part)[index].bfloat16().contiguous()
        for index, name in enumerate(NAMES)
        for part in ("embeds", "pooled")
    }
    write_bytes(folder / NAMED_PROMPTS, save(every))
