"""What all tests share: where those for a GPU run, and ``qrun`` with a tiny model for a pack.

What the model needs is imported when a test asks for it: tests of the kernels also run where that
is not installed.
"""

import pytest
import torch


def pytest_runtest_setup(item):
    """Skip what is marked ``gpu`` where there is none."""
    if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """A cache of the tests' own in place of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


class Qrun:
    """The command ``qrun``; calling it runs it.

    Attributes:
        load: stands in for the loader; a test may put another in its place.
        loads: the options of every load until now.
    """

    def __init__(self, load):
        from runtime.cli.app import make_app

        self.load = load
        self.loads = []
        self._app = make_app(self._load, lambda **_: None)

    def __call__(self, *arguments):
        from typer.testing import CliRunner

        return CliRunner().invoke(self._app, [*map(str, arguments)])

    def _load(self, **options):
        self.loads.append(options)
        return self.load(**options)


@pytest.fixture(scope="session")
def tiny():
    from tests.runtime.tiny_pipeline import make_tiny_pipeline

    return make_tiny_pipeline()


@pytest.fixture
def qrun(tiny):
    return Qrun(lambda **_: tiny)


@pytest.fixture
def loads(qrun):
    """The options of every load of `qrun`."""
    return qrun.loads
