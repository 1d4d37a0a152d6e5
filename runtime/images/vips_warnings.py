"""What libvips warns of while it works, kept from the screen and given to the caller."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyvips

from runtime.images import vips_log  # noqa: F401  routes them

_LOGGER = logging.getLogger("pyvips")
_ONE_AT_A_TIME = threading.RLock()
"""libvips warns from threads of its own, so that a warning does not tell whose it is."""


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage().removeprefix("VIPS: ")
        self.messages.append(" ".join(message.split()))


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect libvips' warnings, one line each, while the block runs."""
    collector = _Collector()
    with _ONE_AT_A_TIME:
        propagate, _LOGGER.propagate = _LOGGER.propagate, False
        level = _LOGGER.level
        _LOGGER.setLevel(logging.WARNING)
        _LOGGER.addHandler(collector)
        pyvips.vips_lib.vips_error_clear()  # a warning may quote all that stands there
        try:
            yield collector.messages
        finally:
            _LOGGER.removeHandler(collector)
            _LOGGER.setLevel(level)
            _LOGGER.propagate = propagate
