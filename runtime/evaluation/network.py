"""Downloads of metric weights that cannot hang.

Libraries that fetch weights wait for minutes where a firewall swallows packets, and try again and
again where there is no network. Here one short question decides beforehand: where the weights'
host does not answer, every later name look-up fails at once, so that weights which are on this
machine are used and the others are missed in a moment.
"""

import os
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

WEIGHTS_URL = "https://huggingface.co"
"""Where pyiqa keeps the weights of its metrics."""

ANSWER_S = 8.0
"""How long the host has to answer; look-ups of names count."""
SILENCE_S = 30.0
"""How long a download may stand still."""


def answers(url: str, *, within_s: float = ANSWER_S) -> bool:
    """Whether anything answers at ``url``, be it an error page; through a proxy if one is set."""
    heard = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=within_s):
                heard.set()
        except urllib.error.HTTPError:
            heard.set()
        except OSError:
            pass
        finally:
            done.set()

    # Name look-ups have no timeout of their own; a thread that hangs in one is left behind.
    done = threading.Event()
    threading.Thread(target=ask, daemon=True).start()
    done.wait(within_s)
    return heard.is_set()


@contextmanager
def bounded_downloads(url: str = WEIGHTS_URL) -> Iterator[bool]:
    """Bound what is downloaded inside the block; yields whether there is a network at all."""
    online = answers(url)
    timeout, look_up = socket.getdefaulttimeout(), socket.getaddrinfo
    variable = os.environ.get("HF_HUB_OFFLINE")
    constant = _hub_offline()

    def refuse(host: object, *_arguments: object, **_options: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, f"no network ({url} does not answer)")

    socket.setdefaulttimeout(SILENCE_S)
    if not online:
        socket.getaddrinfo = refuse
        # The hub's client would wait between six attempts. It reads the variable when imported.
        os.environ["HF_HUB_OFFLINE"] = "1"
        _set_hub_offline(True)
    try:
        yield online
    finally:
        socket.setdefaulttimeout(timeout)
        socket.getaddrinfo = look_up
        if variable is None:
            os.environ.pop("HF_HUB_OFFLINE", None)
        else:
            os.environ["HF_HUB_OFFLINE"] = variable
        _set_hub_offline(constant)


def _hub_offline() -> bool:
    """Whether the hub's client stays offline by the user's own wish."""
    constants: Any = sys.modules.get("huggingface_hub.constants")
    if constants is None:
        return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    return bool(constants.HF_HUB_OFFLINE)


def _set_hub_offline(offline: bool) -> None:
    constants: Any = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        constants.HF_HUB_OFFLINE = offline
