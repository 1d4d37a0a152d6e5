"""A machine for the benchmark's tests."""

import pytest

from runtime.bench import peers


@pytest.fixture
def no_peers(monkeypatch):
    """A machine without SDNQ and torchao."""
    monkeypatch.setattr(peers, "_not_installed", lambda package: f"{package} is not installed")
