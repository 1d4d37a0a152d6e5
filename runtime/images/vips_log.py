"""What libvips and GLib have to say goes to Python's logging, whatever it is.

pyvips does this for libvips' own messages if they are valid UTF-8; a message that quotes a file may
not be. GLib's, about values of a file that fit none of its types, would go to stderr.
"""

import logging
from typing import Any

import pyvips

_LOGGER = logging.getLogger("pyvips")
_DOMAINS = (b"VIPS", b"GLib-GObject", b"GLib")
_ALL_LEVELS = 0xFF
"""Every level, and GLib's flags for fatal messages and for messages about messages."""
_LEVELS = {1 << 2: logging.ERROR, 1 << 3: logging.ERROR, 1 << 4: logging.WARNING}
_OTHER = logging.DEBUG


def _pass_on(domain: Any, level: int, message: Any, _data: Any) -> None:
    severity = max((_LEVELS[bit] for bit in _LEVELS if level & bit), default=_OTHER)
    _LOGGER.log(severity, "%s: %s", _text(domain), _text(message))


def _text(c_string: Any) -> str:
    if c_string == pyvips.ffi.NULL:
        return ""
    found: bytes = pyvips.ffi.string(c_string)
    return found.decode(errors="replace")


def _take_over() -> Any:
    if pyvips.API_mode:  # compiled: one C function, whose Python side is replaced
        pyvips.ffi.def_extern(name="_log_handler_callback")(_pass_on)
        handler = pyvips.glib_lib._log_handler_callback
    else:
        handler = pyvips.ffi.callback("GLogFunc", _pass_on)
    for domain in _DOMAINS:
        pyvips.glib_lib.g_log_set_handler(domain, _ALL_LEVELS, handler, pyvips.ffi.NULL)
    return handler


_handler = _take_over()
"""Kept: what C calls must not be collected."""
