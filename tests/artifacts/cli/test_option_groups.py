from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import pytest
import typer
from typer.testing import CliRunner

from artifacts.cli.option_groups import grouped_options


@dataclass(frozen=True)
class Sampling:
    steps: Annotated[int, typer.Option(help="Sampling steps.")] = 40
    mirrored: Annotated[bool, typer.Option("--mirror/--no-mirror")] = False


@dataclass(frozen=True)
class Target:
    bits: Annotated[int, typer.Option(help="Bits.")]


@dataclass(frozen=True)
class Output:
    panel: ClassVar[str] = "What is written"

    folder: Annotated[str, typer.Option(help="Where.")] = "."


@pytest.fixture
def run():
    """Run a command with the given arguments: what it was called with, exit code, output."""
    calls = []
    app = typer.Typer()

    @app.command()
    @grouped_options
    def upscale(
        image: Annotated[str, typer.Argument()],
        *,
        first: Annotated[int, typer.Option()] = 1,
        sampling: Sampling,
        target: Target,
        last: Annotated[int, typer.Option()] = 2,
    ) -> None:
        """Enlarge."""
        calls.append((image, first, sampling, target, last))

    def invoke(*arguments):
        result = CliRunner().invoke(app, arguments)
        return calls, result.exit_code, result.output

    return invoke


def test_the_function_gets_its_groups(run):
    calls, code, output = run("a.png", "--steps", "7", "--bits", "4", "--mirror", "--last", "9")
    assert code == 0, output
    assert calls == [("a.png", 1, Sampling(7, True), Target(4), 9)]


def test_bound_arguments_are_no_options():
    seen = []

    def upscale(*, sampling: Sampling, load: "NotImported") -> None:  # noqa: F821
        seen.append((sampling, load))

    app = typer.Typer()
    app.command()(grouped_options(upscale, load=len))
    assert CliRunner().invoke(app, ["--steps", "3"]).exit_code == 0
    assert seen == [(Sampling(3), len)]
    assert "load" not in CliRunner().invoke(app, ["--help"]).output


def test_defaults_hold_and_what_has_none_is_required(run):
    calls, code, output = run("a.png", "--bits", "4")
    assert code == 0, output
    assert calls == [("a.png", 1, Sampling(), Target(4), 2)]
    _, code, output = run("a.png")
    assert code == 2
    assert "--bits" in output


def test_help_lists_the_options_in_their_places(run):
    _, code, output = run("--help")
    assert code == 0
    places = [output.index(word) for word in ("--first", "--steps", "--mirror", "--bits", "--last")]
    assert places == sorted(places)
    assert "Enlarge." in output
    assert "--sampling" not in output


def test_help_lists_a_group_under_its_panel():
    app = typer.Typer()

    @app.command()
    @grouped_options
    def save(*, sampling: Sampling, output: Output) -> None:
        """Save."""

    text = CliRunner().invoke(app, "--help").output
    before, panel = text.split("What is written")
    assert "--folder" in panel
    assert "--folder" not in before
    assert "--steps" in before
    assert Output().folder == "."


def test_two_options_of_one_name_are_refused():
    def command(*, steps: int, sampling: Sampling) -> None: ...

    with pytest.raises(TypeError, match="two options are called steps"):
        grouped_options(command)


def test_a_default_that_help_cannot_show_is_refused():
    @dataclass
    class Many:
        names: Annotated[list[str], typer.Option()] = field(default_factory=list)

    def command(*, many: Many) -> None: ...

    command.__annotations__["many"] = Many
    with pytest.raises(TypeError, match=r"Many\.names has a default factory"):
        grouped_options(command)
