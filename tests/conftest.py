"""What tests of the command ``qrun`` share: a tiny random model in place of a pack."""

import pytest
from typer.testing import CliRunner

from runtime.cli.app import make_app
from tests.runtime.tiny_pipeline import make_tiny_pipeline


class Qrun:
    """The command; calling it runs it.

    Attributes:
        load: stands in for the loader; a test may put another in its place.
        loads: the options of every load until now.
    """

    def __init__(self, load):
        self.load = load
        self.loads = []
        self._app = make_app(self._load)

    def __call__(self, *arguments):
        return CliRunner().invoke(self._app, [*map(str, arguments)])

    def _load(self, **options):
        self.loads.append(options)
        return self.load(**options)


@pytest.fixture(scope="session")
def tiny():
    return make_tiny_pipeline()


@pytest.fixture
def qrun(tiny):
    return Qrun(lambda **_: tiny)


@pytest.fixture
def loads(qrun):
    """The options of every load of `qrun`."""
    return qrun.loads
