"""Run ``qplan`` inside the test's own process."""

from pathlib import Path

from typer.testing import CliRunner, Result

from planner.cli.app import app


def run_qplan(*arguments: object) -> Result:
    """Run one command and give its exit code and output."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def assert_fails(result: Result, code: int, *parts: str) -> None:
    """It ended with ``code``, nothing on stdout, and one or two lines that hold ``parts``.

    Notes about what was chosen may stand before them.
    """
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert lines[0].startswith("error: ")
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: ")), lines
    for part in parts:
        assert part in result.stderr


def leftovers(folder: Path) -> list[str]:
    """Packs, and unfinished ones, in ``folder``."""
    return sorted(p.name for p in folder.iterdir() if ".qpack" in p.name or ".partial" in p.name)
