"""Options that several commands share, listed once: a dataclass stands for all of its fields.

    @dataclass(frozen=True)
    class Sampling:
        steps: Annotated[int, typer.Option(help="Sampling steps.")] = 40
        seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0

    @app.command()
    @grouped_options
    def upscale(image: Path, *, sampling: Sampling, force: bool = False) -> None:
        ...

The command takes ``--steps`` and ``--seed``, in their place between the others; the function gets a
``Sampling``. Where the dataclass has a class variable ``panel``, ``--help`` lists its options under
that heading. typer reads a function's signature and annotations, and nothing else of it, so the two
are all that is changed. Nothing heavy is imported here: ``--help`` goes through this module.
"""

import copy
import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Container
from typing import Annotated, Any, get_args, get_type_hints


def grouped_options(command: Callable[..., None], **bound: Any) -> Callable[..., None]:
    """Give ``command`` one keyword-only option for every field of its dataclass parameters.

    Args:
        command: a function whose parameters are options, groups of them, or ``bound``.
        bound: arguments that do not come from the command line; they are no options, and their
            annotations may name what is not imported.

    Raises:
        TypeError: two options have one name, or a field has a default factory, which a command
            line could not show.
    """
    hints = _hints(command, without=bound)
    parameters: dict[str, inspect.Parameter] = {}
    groups: dict[str, type[Any]] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if name in bound:
            continue
        hint = hints[name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            groups[name] = hint
            added = _options(hint)
        else:
            added = [parameter.replace(annotation=hint)]
        for option in added:
            if option.name in parameters:
                raise TypeError(f"{command.__name__}: two options are called {option.name}")
            parameters[option.name] = option

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            fields = [field.name for field in dataclasses.fields(group)]
            values[name] = group(**{field: values.pop(field) for field in fields})
        command(**values, **bound)

    run.__signature__ = inspect.Signature([*parameters.values()])  # type: ignore[attr-defined]
    run.__annotations__ = {name: option.annotation for name, option in parameters.items()}
    return run


def _hints(command: Callable[..., None], *, without: Container[str]) -> dict[str, Any]:
    """What the annotations of ``command`` stand for."""
    annotations = {n: a for n, a in command.__annotations__.items() if n not in without}
    kept = types.SimpleNamespace(__annotations__=annotations)
    return get_type_hints(kept, command.__globals__, include_extras=True)


def _options(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    panel: str | None = getattr(group, "panel", None)
    found = []
    for field in dataclasses.fields(group):
        if field.default_factory is not dataclasses.MISSING:
            raise TypeError(f"{group.__name__}.{field.name} has a default factory")
        required = field.default is dataclasses.MISSING
        found.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if required else field.default,
                annotation=_in_panel(hints[field.name], panel),
            )
        )
    return found


def _in_panel(annotation: Any, panel: str | None) -> Any:
    """The option ``Annotated[type, typer.Option(...)]``, listed under ``panel`` by ``--help``."""
    if panel is None:
        return annotation
    kind, option, *rest = get_args(annotation)
    option = copy.copy(option)  # other commands may list it elsewhere
    option.rich_help_panel = panel
    return Annotated[(kind, option, *rest)]
