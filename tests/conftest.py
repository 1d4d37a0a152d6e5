"""What all tests share: where those for a GPU run, and a tiny random model in place of a pack.

What the model needs is imported when a test asks for it: tests of the kernels also run where that
is not installed.
"""

import pytest
import torch


def pytest_runtest_setup(item):
    """Skip what is marked ``gpu`` where there is none."""
    if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def tiny():
    from tests.runtime.tiny_pipeline import make_tiny_pipeline

    return make_tiny_pipeline()


@pytest.fixture
def loads(tiny, monkeypatch):
    """Stand in for the loader of ``qrun``; the list fills with the options of every load."""
    from runtime.cli import app as cli

    calls = []

    def load(**options):
        calls.append(options)
        return tiny

    monkeypatch.setattr(cli, "_load_pipeline", load)
    return calls
