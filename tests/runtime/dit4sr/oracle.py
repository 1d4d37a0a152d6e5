"""What the network must give: tensors that it gave when it agreed with the published one.

``oracle.safetensors`` holds a checkpoint of three blocks (``state.*``), inputs (``in.*``), and for
every variant one forward pass (``out.VARIANT``) and four steps of sampling (``loop.VARIANT``) in
float64. `write_oracle` makes it.
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open

from artifacts.dit4sr.config import TransformerConfig
from runtime.dit4sr.network import DiT4SR
from runtime.pipeline import Prompts
from runtime.sampling.sampler import sample
from runtime.sampling.settings import UpscaleSettings

FILE = Path(__file__).with_name("oracle.safetensors")
VARIANTS = ("q", "f", "r1")
INPUTS = ("hidden_states", "control", "prompt_embeds", "pooled", "timestep")
GUIDANCE, SHIFT, STEPS = 8.0, 3.0, 4
SETTINGS = UpscaleSettings(
    steps=STEPS,
    guidance=GUIDANCE,
    shift=SHIFT,
    tile=64,
    overlap=24,
    min_side_px=128,
    color_fix="none",
)

# float64 is not exact: diffusers computes the timestep's sines in float32, from phases up to 1000
# whose last bit is 6e-5. A thirtieth of that or so is left in the output.
BOUNDS = {torch.float32: 1e-4, torch.float64: 1e-5}


class Tensors:
    """The tensors of a file such as the oracle, in one dtype, and what they belong to."""

    def __init__(self, dtype=torch.float64, path=FILE):
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name).to(dtype) for name in file.keys()}  # noqa: SIM118
            self.metadata = file.metadata()
        self.dtype = dtype
        self.tensors = tensors
        self.config = TransformerConfig.from_diffusers(json.loads(self.metadata["config"]))
        self.state = {
            name.removeprefix("state."): tensor
            for name, tensor in tensors.items()
            if name.startswith("state.")
        }
        self.inputs = {name: tensors[f"in.{name}"] for name in INPUTS}
        embeds, pooled = self.inputs["prompt_embeds"], self.inputs["pooled"]
        self.prompts = Prompts(embeds[1], pooled[1], embeds[0], pooled[0])

    def network(self, variant, make=DiT4SR):
        network = make(self.config, variant).to(self.dtype)
        network.load_state_dict(self.state)
        return network.requires_grad_(False)

    def sampled(self, network):
        """The latent that ``network`` samples from the first image."""
        return sample(
            network,
            self.inputs["control"][:1],
            self.prompts,
            SETTINGS,
            noise=self.inputs["hidden_states"][:1],
            patch_size=self.config.patch_size,
        )


def relative_error(actual, expected):
    actual, expected = (torch.as_tensor(x).double() for x in (actual, expected))
    return float((actual - expected).norm() / expected.norm())
