"""A patch grid that moves: what the network is shown, and that it is undone."""

import torch

from benchmarks.shifted_grid import ShiftedGrid


def test_every_second_timestep_of_a_picture_is_seen_moved_and_moved_back():
    seen = []

    def network(noisy, control, _embeds, _pooled, _timestep, _bits):
        seen.append((noisy, control))
        return noisy + 10 * control

    grid = ShiftedGrid(network)
    noisy, control = torch.rand(2, 1, 3, 4, 6)
    none = torch.zeros(1)

    def moved_at(*timesteps):
        seen.clear()
        for timestep in timesteps:
            result = grid(noisy, control, none, none, torch.tensor([timestep]), None)
            assert torch.equal(result, noisy + 10 * control)
        for shown in seen:
            same = torch.equal(shown[0], noisy)
            assert same or torch.equal(shown[0], noisy.roll((-1, -1), (-2, -1)))
            assert same == torch.equal(shown[1], control)
        return [not torch.equal(shown[0], noisy) for shown in seen]

    # Two tiles at one timestep are seen alike, and a new picture begins unmoved.
    assert moved_at(1000.0, 800.0, 800.0, 500.0, 100.0) == [False, True, True, False, True]
    assert moved_at(1000.0, 800.0, 500.0) == [False, True, False]
    assert moved_at(1000.0, 800.0) == [False, True]
