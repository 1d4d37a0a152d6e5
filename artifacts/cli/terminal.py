"""A rich console that shows text as text."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from artifacts.cli.output import abandon_stderr
from schemas.error_text import printable_lines


class Terminal(Console):
    """A `rich.console.Console` without markup, on which characters that terminals obey are escaped.

    rich writes its own colours and cursor movements as control segments and styles; those stay.
    """

    def __init__(self, **options: Any) -> None:
        # A name such as "[/b]" or ":smile:" is that name.
        super().__init__(markup=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; on a stderr that cannot be written, nothing."""
        try:
            super().print(*objects, **options)
        except OSError:
            if not self.stderr:
                raise
            abandon_stderr()

    def on_broken_pipe(self) -> None:
        """What rich calls where the reader of the output is gone; it ends the process."""
        if self.stderr:
            abandon_stderr()
        else:
            super().on_broken_pipe()

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render, with the text of every segment made printable."""
        for segment in super().render(renderable, options):
            if segment.control is None:
                yield Segment(printable_lines(segment.text), segment.style)
            else:
                yield segment
