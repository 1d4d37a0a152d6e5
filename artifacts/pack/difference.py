"""Names that two parts of a pack must have in common."""

from collections.abc import Iterable

from schemas.errors import PackError

_NAMES_SHOWN = 5


def check_difference(
    left: Iterable[str], right: Iterable[str], left_side: str, right_side: str, what: str
) -> None:
    """Check that two sets of names are equal.

    Raises:
        PackError: the message names both sides and the first names that only one of them has.
    """
    left_names, right_names = set(left), set(right)
    problems = [
        f"{side} alone has {len(names)}: {', '.join(name[:200] for name in names[:_NAMES_SHOWN])}"
        for side, names in (
            (left_side, sorted(left_names - right_names)),
            (right_side, sorted(right_names - left_names)),
        )
        if names
    ]
    if problems:
        raise PackError(f"{what} of {left_side} and {right_side} differ: {'; '.join(problems)}")
