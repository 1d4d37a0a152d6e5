"""The hub's own client, and its errors as this project's."""

import importlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from schemas.errors import PackError, ResourceError, UsageError

PIP_HINT = "pip install 'qdit4sr[hub]'"


def hub_client(module: str = "") -> Any:
    """The module ``huggingface_hub``, or one of its modules.

    They are imported late: it is an extra, and takes half a second.

    Raises:
        UsageError: it is not installed.
    """
    try:
        client = importlib.import_module("huggingface_hub")
    except ImportError as cause:
        raise UsageError(
            "packs on the hub need the package huggingface_hub", hint=PIP_HINT
        ) from cause
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of every retry
    if sys.stderr is None or not sys.stderr.isatty():  # None where it was closed
        importlib.import_module("huggingface_hub.utils").disable_progress_bars()
    return importlib.import_module(f"huggingface_hub.{module}") if module else client


@contextmanager
def hub_errors(name: object) -> Iterator[None]:
    """Turn what the client raises inside the block into typed errors about ``name``.

    Raises:
        PackError: there is no such repository or revision, or it may not be read.
        UsageError: the name or the token is refused.
        ResourceError: the hub cannot be reached, or answers with an error of its own.
    """
    errors = hub_client("errors")
    try:
        yield
    except errors.RevisionNotFoundError as cause:
        raise PackError(f"{name}: the hub has no such revision of it") from cause
    except errors.RepositoryNotFoundError as cause:  # gated ones among them
        raise PackError(
            f"{name}: the hub has no such repository, or does not show it to you",
            hint="is the name right? private and gated ones need a token: `hf auth login`",
        ) from cause
    except errors.HFValidationError as cause:
        raise UsageError(f"{name}: the hub has no such names") from cause
    except errors.HfHubHTTPError as cause:
        status = cause.response.status_code
        if status in (401, 403):
            raise UsageError(
                f"{name}: the hub refuses it ({status})", hint="log in with `hf auth login`"
            ) from cause
        raise ResourceError(f"{name}: the hub answers with {status}") from cause
    except errors.EntryNotFoundError as cause:
        raise ResourceError(
            f"{name}: neither the hub nor its cache on this machine gives it",
            hint="is there a network, and is HF_HUB_OFFLINE unset?",
        ) from cause
    except (RuntimeError, ValueError) as cause:  # of one file's upload
        raise ResourceError(f"{name}: {_line(cause)}", hint="push it again") from cause
    # Which HTTP library raises the former depends on the client's version.
    except (errors.HTTPError, ConnectionError, TimeoutError) as cause:
        raise ResourceError(f"{name}: the hub cannot be reached: {_line(cause)}") from cause


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
