"""Muon, and which parameters it takes."""

import pytest
import torch
from torch import nn

from training.muon import RMS, Muon, orthogonal
from training.optimizers import network_optimizers


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 24, 8), (2, 8, 24)])
def test_singular_values_come_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_a_step_has_the_size_asked_for_whatever_the_gradient():
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.zeros(16, 48))
    optimizer = Muon([parameter], lr=0.1)
    parameter.grad = 1e-4 * torch.randn(16, 48)
    optimizer.step()
    assert parameter.square().mean().sqrt().item() == pytest.approx(0.1 * RMS, rel=0.2)


def test_a_parameter_without_gradient_stays():
    parameters = [nn.Parameter(torch.ones(4, 4)) for _ in range(2)]
    optimizer = Muon(parameters, lr=0.1)
    parameters[0].grad = torch.eye(4)
    optimizer.step()
    assert not torch.equal(parameters[0], torch.ones(4, 4))
    assert torch.equal(parameters[1], torch.ones(4, 4))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_has_one_optimizer(name):
    network = nn.ModuleDict({"blocks": nn.Linear(4, 4), "head": nn.Linear(4, 2)})
    optimizers = network_optimizers(name, network, network["blocks"])
    taken = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(taken) == sorted(id(p) for p in network.parameters())
