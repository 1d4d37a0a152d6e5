"""Make ``oracle.safetensors``: ``python -m tests.runtime.dit4sr.write_oracle GOLDEN_FOLDER``.

Only a network that agrees with the published one may say what is right, so nothing is written
unless it does, on the tensors in the folder.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.position_table import sincos_table
from tests.runtime.dit4sr.oracle import BOUNDS, FILE, VARIANTS, Tensors, relative_error
from tests.runtime.dit4sr.random_network import random_inputs, random_state

CONFIG = TransformerConfig(
    sample_size=12,
    in_channels=4,
    out_channels=4,
    num_layers=3,
    num_attention_heads=2,
    attention_head_dim=8,
    joint_attention_dim=12,
    caption_projection_dim=16,
    pooled_projection_dim=10,
    pos_embed_max_size=8,
    dual_attention_layers=(0, 1),
)


def check(folder: Path) -> None:
    for variant in ("q", "r1"):
        golden = Tensors(torch.float64, folder / f"dit4sr_tiny_{variant}.safetensors")
        network = golden.network(variant)
        errors = {
            "forward pass": relative_error(
                network(*golden.inputs.values()), golden.tensors["out.sample"]
            ),
            "loop": relative_error(golden.sampled(network), golden.tensors["loop.latents"]),
        }
        for what, error in errors.items():
            print(f"{variant}, {what}: relative error {error:.1e}")
            if not error < BOUNDS[torch.float64]:
                sys.exit("the network is not the published one")


def write() -> None:
    state = {name: tensor.bfloat16() for name, tensor in random_state(CONFIG, seed=3).items()}
    inputs = {name: tensor.float() for name, tensor in random_inputs(CONFIG, seed=4).items()}
    tensors = {f"state.{name}": tensor for name, tensor in state.items()}
    tensors["state.pos_embed.pos_embed"] = sincos_table(CONFIG)
    tensors |= {f"in.{name}": tensor for name, tensor in inputs.items()}
    metadata = {"config": json.dumps(CONFIG.model_dump(mode="json"))}
    save_file(tensors, FILE, metadata)
    oracle, results = Tensors(), {}
    for variant in VARIANTS:
        network = oracle.network(variant)
        results[f"out.{variant}"] = network(*oracle.inputs.values())
        results[f"loop.{variant}"] = oracle.sampled(network)
    save_file({**tensors, **results}, FILE, metadata)
    print(f"{FILE}: {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    check(Path(sys.argv[1]))
    write()
