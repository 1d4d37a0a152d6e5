"""The noise levels of a sampler, from noise alone or from the control latent under noise."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from runtime.sampling.sampler import initial_latent
from runtime.sampling.schedule import euler_schedule


@pytest.mark.parametrize(("steps", "shift"), [(1, 3.0), (8, 3.0), (5, 1.0)])
def test_from_noise_alone_it_is_diffusers_own(steps, shift):
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(steps)
    ours = euler_schedule(steps, shift)
    assert torch.equal(ours.sigmas, theirs.sigmas)
    assert torch.equal(ours.timesteps, theirs.timesteps)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("start", [0.05, 0.3, 0.9])
def test_it_begins_with_the_noise_asked_for_and_falls_to_none(start, shift):
    one, many = euler_schedule(1, shift, start), euler_schedule(6, shift, start)
    for schedule in (one, many):
        assert float(schedule.sigmas[0]) == pytest.approx(start)
        assert float(schedule.timesteps[0]) == pytest.approx(1000 * start)
        assert float(schedule.sigmas[-1]) == 0
        assert bool((schedule.sigmas.diff() < 0).all())
    assert (len(one.timesteps), len(many.timesteps)) == (1, 6)


def test_nearly_all_noise_is_nearly_the_whole_schedule():
    torch.testing.assert_close(
        euler_schedule(8, 3.0, 1 - 1e-6).sigmas, euler_schedule(8, 3.0).sigmas, rtol=1e-4, atol=1e-5
    )


def test_the_first_latent_is_the_control_latent_under_noise():
    noise, control = torch.randn(2, 1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(initial_latent(noise, control, torch.tensor(1.0)), noise)
    expected = 0.25 * noise + 0.75 * control
    torch.testing.assert_close(initial_latent(noise, control, torch.tensor(0.25)), expected)
