"""Options that take one of a few words."""

from schemas.errors import UsageError


def check_choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Make sure that an option has one of its values.

    Raises:
        UsageError: it has not; names all of them.
    """
    if value not in allowed:
        raise UsageError(f"{option} {value}: one of {', '.join(allowed)}")
