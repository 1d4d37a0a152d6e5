"""The optimizer loop: it learns, and an interrupted run ends where an uninterrupted one does."""

import pytest
import torch
from torch import nn

from training.averages import Averages
from training.loop import Training
from training.optimizers import adamw
from training.schedule import WarmupStableDecay


def make_training(path, steps=40, decay=10):
    torch.manual_seed(0)
    model = nn.Linear(3, 1, bias=False)
    return Training(
        model,
        [adamw(model.parameters(), 0.3)],
        WarmupStableDecay(steps, warmup=5, decay=decay),
        Averages(model, [0.5, 0.9]),
        path,
        save_every=10,
    )


def task(training, fail_at=None):
    wanted = torch.tensor([1.0, -2.0, 0.5])

    def batch_of(step):
        if step == fail_at:
            raise KeyboardInterrupt
        return (torch.randn(16, 3),)  # seeded by the loop, step by step

    def loss(x):
        return (training.model(x).squeeze(1) - x @ wanted).square().mean()

    return batch_of, loss


def test_it_learns(tmp_path):
    training = make_training(tmp_path / "state.pt", steps=200, decay=50)
    batch_of, loss_of = task(training)
    first = loss_of(*batch_of(0)).item()
    assert training.run(batch_of, loss_of)
    assert loss_of(*batch_of(0)).item() < first / 100


def test_an_interrupted_run_continues_to_the_same_weights(tmp_path):
    whole = make_training(tmp_path / "whole.pt")
    whole.run(*task(whole))

    for fail_at in (25, 36):  # before and in the decay
        cut = make_training(tmp_path / "cut.pt")
        with pytest.raises(KeyboardInterrupt):
            cut.run(*task(cut, fail_at))
    resumed = make_training(tmp_path / "cut.pt")
    resumed.run(*task(resumed))
    assert torch.equal(resumed.model.weight, whole.model.weight)
    for decay, average in whole.averages.of_decay.items():
        assert torch.equal(resumed.averages.of_decay[decay]["weight"], average["weight"])


def test_a_prolonged_run_starts_from_where_the_decay_began(tmp_path):
    short = make_training(tmp_path / "short.pt", steps=40)
    short.run(*task(short))
    for fail_at in (45, None):  # interrupted once more on the way
        longer = make_training(tmp_path / "short.pt", steps=80)
        if fail_at is None:
            longer.run(*task(longer))
            continue
        with pytest.raises(KeyboardInterrupt):
            longer.run(*task(longer, fail_at))
    whole = make_training(tmp_path / "whole.pt", steps=80)
    whole.run(*task(whole))
    assert torch.equal(longer.model.weight, whole.model.weight)


def test_a_run_stops_after_its_minutes_with_the_state_saved(tmp_path):
    training = make_training(tmp_path / "state.pt")
    assert not training.run(*task(training), minutes=0)
    assert (tmp_path / "state.pt").exists()


def test_the_rate_rises_stays_and_falls():
    schedule = WarmupStableDecay(100, warmup=10, decay=20)
    factors = [schedule(step) for step in range(100)]
    assert factors[0] < factors[5] < factors[10] == 1
    assert factors[10:80] == [1.0] * 70
    assert factors[80] > factors[90] > factors[99] > 0
    assert min(WarmupStableDecay(100, warmup=10)(step) for step in range(10, 100)) == 1
