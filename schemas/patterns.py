"""Regular expressions as users write them."""

import re

from schemas.errors import UsageError

SHOWN_CHARACTERS = 100


def compile_pattern(text: str) -> re.Pattern[str]:
    """Compile a regular expression.

    Raises:
        UsageError: it is none, or one that Python cannot compile.
    """
    try:
        return re.compile(text)
    except (re.error, OverflowError) as cause:  # a repetition of more than 2^32
        reason = str(cause)
    except RecursionError:
        reason = "nested too deep"
    more = "..." if len(text) > SHOWN_CHARACTERS else ""
    raise UsageError(f"pattern {text[:SHOWN_CHARACTERS]!r}{more}: {reason}")
