"""What layers are fed, measured by hooks."""

import pytest
import torch
from torch import nn

from planner.calibrate.input_statistics import InputStatistics


@pytest.fixture
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))


def inputs(seed, *shape):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_mean_squares_are_those_of_each_step_over_all_calls(network):
    steps = [[inputs(0, 2, 5, 6)], [inputs(1, 2, 5, 6), inputs(2, 1, 9, 6)]]
    with InputStatistics(network, ["0", "2"], 2) as watch:
        for calls in steps:
            watch.next_step()
            for x in calls:
                network(x)
    found = watch.result()
    for step, calls in enumerate(steps):
        first = torch.cat([x.flatten(0, -2) for x in calls]).double()
        second = torch.cat([network[1](network[0](x)).flatten(0, -2) for x in calls]).double()
        assert found.mean_squares[0, step] == pytest.approx(first.square().mean().item(), rel=1e-6)
        assert found.mean_squares[1, step] == pytest.approx(second.square().mean().item(), rel=1e-6)
    assert found.maximum == found.channel_mean_squares == []


def test_channels_are_measured_over_all_steps(network):
    x = inputs(3, 2, 7, 6)
    with InputStatistics(network, ["0"], 2, channels=True) as watch:
        for part in x:
            watch.next_step()
            network(part)
    found = watch.result()
    tokens = x.flatten(0, 1).double()
    torch.testing.assert_close(found.maximum[0], tokens.abs().amax(0))
    torch.testing.assert_close(found.channel_mean_squares[0], tokens.square().mean(0))


def test_nothing_is_watched_after_the_end(network):
    with InputStatistics(network, ["0"], 1) as watch:
        watch.next_step()
        network(inputs(0, 1, 2, 6))
    before = watch.result().mean_squares.clone()
    network(inputs(1, 1, 2, 6))
    assert torch.equal(watch.result().mean_squares, before)
    assert not network[0]._forward_pre_hooks


def test_a_layer_that_was_not_run_is_named(network):
    with InputStatistics(network, ["0", "2"], 2) as watch:
        watch.next_step()
        network(inputs(0, 1, 2, 6))
        watch.next_step()
        network[0](inputs(0, 1, 2, 6))
    with pytest.raises(ValueError, match="layer 2 was not run at step 2"):
        watch.result()


def test_steps_are_counted(network):
    watch = InputStatistics(network, ["0"], 1)
    watch.next_step()
    with pytest.raises(ValueError, match="more than 1"):
        watch.next_step()
