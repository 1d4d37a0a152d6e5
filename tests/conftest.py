"""What tests of the command ``qrun`` share: a tiny random model in place of a pack."""

import pytest

from runtime.cli import app as cli
from tests.runtime.tiny_pipeline import make_tiny_pipeline


@pytest.fixture(scope="session")
def tiny():
    return make_tiny_pipeline()


@pytest.fixture
def loads(tiny, monkeypatch):
    """Stand in for the loader; the list fills with the options of every load."""
    calls = []

    def load(**options):
        calls.append(options)
        return tiny

    monkeypatch.setattr(cli, "_load_pipeline", load)
    return calls
