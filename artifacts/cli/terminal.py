"""A rich console that shows text as text."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from schemas.error_text import printable_lines


class Terminal(Console):
    """A `rich.console.Console` without markup, on which characters that terminals obey are escaped.

    rich writes its own colours and cursor movements as control segments and styles; those stay.
    """

    def __init__(self, **options: Any) -> None:
        # A name such as "[/b]" or ":smile:" is that name.
        super().__init__(markup=False, emoji=False, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render, with the text of every segment made printable."""
        for segment in super().render(renderable, options):
            if segment.control is None:
                yield Segment(printable_lines(segment.text), segment.style)
            else:
                yield segment
