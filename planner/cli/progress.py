"""The progress bar of a build: stage, layer, bits and error, time left; none without a terminal."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from artifacts.cli.output import is_terminal
from artifacts.cli.terminal import Terminal
from schemas.error_text import printable

Item = TypeVar("Item")


class BarProgress:
    """Shows a build on stderr; a context manager.

    Args:
        enabled: False shows nothing, and so does a stderr that is no terminal.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description:8}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Terminal(stderr=True),
            disable=not enabled or not is_terminal(sys.stderr),
        )
        self._task = self._progress.add_task("start", total=None, note="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def track(self, items: Sequence[Item], stage: str) -> Iterable[Item]:
        """Yield ``items`` under the heading ``stage``."""
        return self._track(items, stage)

    def note(self, text: str) -> None:
        """Show ``text`` beside the bar."""
        self._progress.update(self._task, note=text)

    def say(self, line: str) -> None:
        """Print ``line`` on stderr, above the bar where there is one."""
        self._progress.console.print(printable(line), highlight=False, soft_wrap=True)

    def _track(self, items: Sequence[Item], stage: str) -> Iterator[Item]:
        self._progress.reset(self._task, description=stage, total=len(items), note="")
        for item in items:
            yield item
            self._progress.advance(self._task)
