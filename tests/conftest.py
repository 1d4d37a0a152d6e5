"""What all tests share: where those for a GPU run, and ``qrun`` with a tiny model for a pack.

What the model needs is imported when a test asks for it: tests of the kernels also run where that
is not installed.
"""

import importlib.util
import shutil

import pytest
import torch

# As `make test` has it, where processes of tests share the cores: a build takes as many layers at a
# time as torch has threads, and tests that count or interrupt them would see them in any order.
torch.set_num_threads(1)


def pytest_runtest_setup(item):
    """Skip what is marked ``gpu`` or ``browser`` where there is none."""
    if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if item.get_closest_marker("browser") is not None:
        if importlib.util.find_spec("playwright") is None:
            pytest.skip("needs the extra `browser`")
        if chromium() is None:
            pytest.skip("needs Chromium")


def chromium():
    """Path of the system's browser, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="session")
def browser():
    """A headless browser without a network."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # Chromium's own sandbox does not work where the tests run as root, as in containers.
        opened = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield opened
        opened.close()


class Visit:
    """A page of the disk in a browser.

    Attributes:
        page: playwright's.
        trouble: console warnings, errors, and requests that leave the disk.
    """

    def __init__(self, context):
        self.page = context.new_page()
        self.trouble = []
        self.page.on("console", lambda message: self.trouble.append(message.text))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("request", self._heed)

    def _heed(self, request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.trouble.append(request.url)


@pytest.fixture
def visit(browser):
    """Opens a file: path, width in px and colour scheme -> `Visit`."""
    contexts = []

    def opened(path, *, width=1440, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        made = Visit(context)
        made.page.goto(path.as_uri())
        return made

    yield opened
    for context in contexts:
        context.close()


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
