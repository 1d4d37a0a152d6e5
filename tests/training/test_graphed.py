"""Training steps as CUDA graphs: the weights become those of ordinary steps."""

import logging

import pytest
import torch
from torch import nn

from tests.runtime.cuda_graph_stand_in import install
from training.averages import Averages
from training.graphed import WARM_UP, GraphedStep
from training.loop import Training
from training.network import SHIFT
from training.optimizers import network_optimizers
from training.schedule import WarmupStableDecay


class Problem:
    """A small network under Muon and AdamW, on batches of two shapes."""

    def __init__(self, device, folder, *, graphs):
        torch.manual_seed(0)
        self.device, self.calls = device, 0
        self.model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)).to(device)
        optimizers = network_optimizers("muon", self.model, self.model[0])
        self.training = Training(
            self.model,
            optimizers,
            WarmupStableDecay(20, warmup=5, decay=5),
            Averages(self.model, [0.9]),
            folder / "state.pt",
            graphs=graphs,
        )

    def batch_of(self, step):
        generator = torch.Generator().manual_seed(step)
        return (torch.randn(4 + step % 2, 6, generator=generator).to(self.device),)

    def loss_of(self, x):
        self.calls += 1
        return (self.model(x) - SHIFT * x[:, :4]).square().mean()

    def trained(self):
        assert self.training.run(self.batch_of, self.loss_of)
        return [p.detach().cpu() for p in self.model.parameters()]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    if request.param == "cpu":
        install(monkeypatch)
    return torch.device(request.param)


@pytest.mark.gpu  # the CPU's stand-in does what it records, and would take a step twice
def test_replayed_steps_are_the_ordinary_ones(tmp_path):
    device = torch.device("cuda")
    ordinary = Problem(device, tmp_path / "a", graphs=False)
    graphed = Problem(device, tmp_path / "b", graphs=True)
    for one, other in zip(ordinary.trained(), graphed.trained(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert ordinary.calls == 20
    assert graphed.calls == 2 * (WARM_UP + 1)  # a graph per shape, each captured once


def test_losses_outlive_later_steps(device):
    step = GraphedStep(lambda x: (2 * x).sum(), torch.cuda.Stream())
    losses = [step(torch.full((3,), float(n), device=device)) for n in range(WARM_UP + 3)]
    assert [loss.item() for loss in losses] == [6 * n for n in range(WARM_UP + 3)]


def test_random_numbers_differ_from_replay_to_replay(device):
    step = GraphedStep(lambda x: (x + torch.randn_like(x)).sum(), torch.cuda.Stream())
    losses = []
    for seed in range(WARM_UP + 3):
        torch.manual_seed(seed)
        losses.append(step(torch.zeros(3, device=device)).item())
    assert len(set(losses)) == len(losses)
    torch.manual_seed(WARM_UP + 2)
    assert step(torch.zeros(3, device=device)).item() == losses[-1]


def test_a_step_that_waits_for_the_device_is_just_called(device, caplog):
    def waits(x):
        return x * float(x.sum())

    step = GraphedStep(waits, torch.cuda.Stream())
    with caplog.at_level(logging.WARNING):
        for n in range(WARM_UP + 3):
            x = torch.full((2,), float(n), device=device)
            assert torch.equal(step(x), x * x.sum())
    assert len(caplog.records) == 1
    assert "no CUDA graphs" in caplog.records[0].message
