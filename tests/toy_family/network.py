"""The toy's network: every latent pixel by itself, through two linear layers."""

import torch
from torch import nn

from runtime.network.family import LatentNetwork, NetworkFamily
from runtime.network.projection import project
from runtime.sampling.sampler import sample


class ToyNetwork(LatentNetwork):
    """velocity = gain * contract(relu(expand([noisy ; control]))), twice that when loud."""

    def __init__(self, config, variant):
        super().__init__()
        self.expand = nn.Linear(2 * config.channels, config.width)
        self.unused = nn.Linear(1, 1, bias=False)
        self.contract = nn.Linear(config.width, config.channels, bias=False)
        self.gain = nn.Parameter(torch.empty(config.channels))
        self.volume = 2.0 if variant == "loud" else 1.0

    def forward(self, noisy, control, prompts, pooled, timestep, bits=None):
        pixels = torch.cat([noisy, control], 1).permute(0, 2, 3, 1)  # [B, h, w, 2C]
        hidden = project(self.expand, pixels, bits).relu()
        velocity = project(self.contract, hidden, bits) * self.gain * self.volume
        return velocity.permute(0, 3, 1, 2)


def probe_inputs(config, generator):
    latent = [
        torch.randn(1, config.channels, 2, 3, generator=generator, dtype=torch.float64)
        for _ in range(2)
    ]
    return (*latent, torch.zeros(1, 1, 4), torch.zeros(1, 4), torch.zeros(1))


FAMILY = NetworkFamily(
    build=ToyNetwork, probe_config=lambda config: config, probe_inputs=probe_inputs, sample=sample
)
