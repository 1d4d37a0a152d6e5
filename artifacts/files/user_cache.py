"""Where a user's own cache lies."""

import os
from pathlib import Path


def user_cache() -> Path | None:
    """The program's folder below ``$XDG_CACHE_HOME`` or ``~/.cache``; None without a home.

    A relative ``$XDG_CACHE_HOME`` counts for nothing, as its specification has it.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():
        try:
            cache = Path.home() / ".cache"
        except RuntimeError:  # a container's user may have none
            return None
    return cache / "qdit4sr"
