"""The optimizer loop: it learns, and an interrupted run ends where an uninterrupted one does."""

import pytest
import torch
from torch import nn

from training import loop
from training.loop import CosineTraining


def make_training(path, steps=40):
    torch.manual_seed(0)
    return CosineTraining(
        nn.Linear(3, 1, bias=False), path, steps=steps, learning_rate=0.5, ema_decay=0.5
    )


def loss_of(training):
    wanted = torch.tensor([1.0, -2.0, 0.5])

    def loss(step):
        x = torch.randn(16, 3)  # seeded by the loop, step by step
        return (training.model(x).squeeze(1) - x @ wanted).square().mean()

    return loss


def test_it_learns_and_ends_with_the_averaged_weights(tmp_path):
    training = make_training(tmp_path / "state.pt", steps=200)
    first = loss_of(training)(0).item()
    training.run(loss_of(training))
    assert loss_of(training)(0).item() < first / 100
    assert torch.equal(training.model.weight, training.average.module.weight)


def test_an_interrupted_run_continues_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 10)
    whole = make_training(tmp_path / "whole.pt")
    whole.run(loss_of(whole))

    cut = make_training(tmp_path / "cut.pt")
    plain = loss_of(cut)

    def failing(step):
        if step == 25:
            raise KeyboardInterrupt
        return plain(step)

    with pytest.raises(KeyboardInterrupt):
        cut.run(failing)
    resumed = make_training(tmp_path / "cut.pt")
    resumed.run(loss_of(resumed))
    assert torch.equal(resumed.model.weight, whole.model.weight)
