"""Checks of options that several commands have. Nothing heavy is imported with this module."""

from schemas.errors import UsageError


def check_choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Make sure that an option has one of its values.

    Raises:
        UsageError: it has not; names all of them.
    """
    if value not in allowed:
        raise UsageError(f"{option} {value}: one of {', '.join(allowed)}")


def check_guidance(guidance: float) -> None:
    """Make sure that a guidance scale can be used.

    Raises:
        UsageError: it is negative, not a number, or too large.
    """
    from schemas.manifest import MAX_GUIDANCE  # noqa: PLC0415  (brings pydantic)

    if not 0 <= guidance <= MAX_GUIDANCE:  # false for NaN too
        raise UsageError(f"--guidance {guidance}: a number from 0 to {MAX_GUIDANCE:g} is needed")
