"""Learning rates by step and by time."""

import pytest

from training import schedule
from training.schedule import WarmupStableDecay, WithinTime


def test_it_rises_stays_and_falls_to_zero():
    rate = WarmupStableDecay(steps=100, warmup=9, decay=19)
    assert rate(0) == pytest.approx(0.1)
    assert [rate(step) for step in (9, 50, 80)] == [1, 1, 1]
    assert 0 < rate(99) < 0.1
    assert rate(100) == rate(105) == 0
    assert rate.decay_start == 81
    assert WarmupStableDecay(steps=100).decay_start is None


def test_time_decides_instead_of_steps(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(schedule.time, "monotonic", lambda: now[0])
    rate = WithinTime(2, warmup=3, decay_share=0.5)
    assert rate(0) == pytest.approx(0.25)
    assert rate(3) == 1
    now[0] += 90  # three quarters of the time
    assert rate(1_000_000) == pytest.approx(0.5)
    now[0] += 30
    assert rate(7) == 0
