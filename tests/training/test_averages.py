"""Averages of weights."""

import pytest
import torch
from torch import nn

from training.averages import Averages


def test_an_average_follows_with_its_decay():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    averages = Averages(model, [0.5])
    nn.init.ones_(model.weight)
    for step in (100, 101):
        averages.update(model, step)
    assert averages.of_decay[0.5]["weight"].item() == pytest.approx(0.75)


def test_the_first_steps_forget_the_initial_weights():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 100.0)
    averages = Averages(model, [0.9999])
    nn.init.ones_(model.weight)
    for step in range(100):
        averages.update(model, step)
    assert averages.of_decay[0.9999]["weight"].item() == pytest.approx(1, abs=0.01)


def test_copies_and_states_restore_it():
    model = nn.Linear(2, 2)
    averages = Averages(model, [0.5, 0.9])
    nn.init.ones_(model.weight)
    averages.update(model, 100)
    other = Averages(nn.Linear(2, 2), [0.9])
    other.load_state_dict(averages.state_dict())
    target = nn.Linear(2, 2)
    other.copy_to(target, 0.9)
    assert torch.equal(target.weight, averages.of_decay[0.9]["weight"])
