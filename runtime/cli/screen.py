"""What every ``qrun`` command shows while it works: lines and progress, on stderr.

Nothing heavy is imported here.
"""

import logging
import time
from collections.abc import Callable, Mapping

from runtime.images.batch import Outcome
from runtime.remote.copies import shown
from schemas.error_text import printable


class Screen:
    """What the user sees: one line per image, log lines, and a progress bar on a terminal.

    All of it goes to stderr; stdout is for results.
    """

    def __init__(self, images: int, *, quiet: bool, unit: str = "images") -> None:
        from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

        from artifacts.cli.terminal import Terminal

        self._quiet = quiet
        self._console = Terminal(stderr=True, soft_wrap=True, highlight=False)
        self._progress = Progress(
            "{task.description}",
            *Progress.get_default_columns()[1:2],
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            "{task.fields[speed]}",
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._steps = self._progress.add_task("steps", total=None, speed="")
        self._files = self._progress.add_task(unit, total=images, visible=images > 1, speed="")
        self._images = images
        self._done = 0
        self._megapixels = 0.0
        self._started = time.monotonic()

    def __enter__(self) -> "Screen":
        self._log = _LogLines(self.say)
        logging.getLogger("runtime").addHandler(self._log)
        logging.getLogger("runtime").setLevel(logging.INFO)
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()
        logging.getLogger("runtime").removeHandler(self._log)

    def say(self, line: str) -> None:
        """Show one line, whatever the names in it hold."""
        self._console.print(printable(line))

    def step(self, done: int, total: int) -> None:
        """Show how far the image at hand is."""
        self._progress.update(self._steps, completed=done, total=total)

    def advance(self) -> None:
        """Count one image as dealt with."""
        self._progress.advance(self._files)
        self._progress.reset(self._steps, total=None)

    def report(self, outcome: Outcome) -> None:
        """Show what became of one image."""
        self.advance()
        if outcome.details is not None:
            self._done += 1
            self._megapixels += outcome.details["width_px"] * outcome.details["height_px"] / 1e6
            self._progress.update(self._files, speed=f"{self._speed():.3g} MP/s")
        if outcome.status == "failed":
            self.say(f"failed: {outcome.error}")
        elif outcome.status == "skipped":
            self.say(f"skipped: {outcome.job.output} {outcome.reason} (--force redoes it)")
        elif not self._quiet and outcome.details is not None:
            size = f"{outcome.details['width_px']} x {outcome.details['height_px']} px"
            self.say(f"done: {outcome.job.output} ({size}, {outcome.details['seconds']:.1f} s)")

    def summarize(self, peak_memory: Mapping[str, int]) -> None:
        """Show how fast a batch went, where anything of one was done, and what memory it took.

        Args:
            peak_memory: kind of memory -> bytes.
        """
        if self._images > 1 and self._done:
            seconds = time.monotonic() - self._started
            self.say(
                f"{self._done} of {self._images} images done in {seconds:.1f} s:"
                f" {self._megapixels:.2f} megapixels of results, {self._speed():.3g} MP/s"
            )
        if peak_memory:
            shown = [f"{size / 2**30:.2f} GiB of {kind}" for kind, size in peak_memory.items()]
            self.say(f"peak memory: {', '.join(shown)}")

    def _speed(self) -> float:
        """Megapixels of results per second since the start, the model's loading included."""
        return self._megapixels / max(time.monotonic() - self._started, 1e-9)


class _LogLines(logging.Handler):
    """Shows log records of the runtime as plain lines."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._show = say

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
        level = "warning" if record.levelno >= logging.WARNING else "note"
        self._show(f"{level}: {shown(record.getMessage())}")
