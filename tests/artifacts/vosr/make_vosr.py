"""A tiny one-step VOSR checkpoint of random weights, in the layout of the published ones."""

import json

import torch
from safetensors.torch import save_file

from artifacts.vosr.config import VosrConfig
from artifacts.vosr.family import FAMILY

TINY = VosrConfig(
    resolution=512,
    patch_size=2,
    dim=32,
    depth=2,
    num_heads=2,
    mlp_ratio=4,
    ae_type="sd2",
    dinov2_size=56,
    enc_dim=24,
    layer_dinov2b_list=(1,),
    encdim_ratio=2,
)
TRAINING = {"learning_rate": 2e-5, "a": 1.0, "resume_ckpt": None, "time_dist": ["uniform", 0, 1.0]}
"""Some of what the training program keeps in the same file."""


def random_state(config=TINY, *, dtype=torch.float32, table=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in FAMILY.tensor_shapes(config).items():
        if name in FAMILY.rebuilt:
            if table:
                state[name] = FAMILY.rebuilt[name].build(config).to(dtype)
        elif name.endswith("norm.weight") or ".norm" in name:
            state[name] = (1 + 0.1 * torch.randn(shape, generator=generator)).to(dtype)
        else:
            spread = shape[-1] ** -0.5 if len(shape) > 1 else 0.1
            state[name] = (spread * torch.randn(shape, generator=generator)).to(dtype)
    return state


def write_folder(path, state, config=TINY, *, weights="checkpoints/ema_model.safetensors", **more):
    """A folder with ``args.json`` and the weights where published folders have them."""
    file = path / weights
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, file)
    content = {**config.model_dump(mode="json"), **TRAINING, **more}
    (path / "args.json").write_text(json.dumps(content))
    return path
