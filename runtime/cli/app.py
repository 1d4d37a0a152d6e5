"""The command ``qrun``: upscale images with a pack, measure results and speed, see the machine.

One module for each command; this one puts them together. Heavy imports stand inside the functions
that need them, so that ``--help`` and a mistyped path are answered at once.
"""

from typing import TYPE_CHECKING

import typer

from artifacts.cli.option_groups import grouped_options
from artifacts.cli.version import Version
from runtime.cli.bench import BENCH_EXAMPLE, bench
from runtime.cli.doctor import DOCTOR_EXAMPLE, doctor
from runtime.cli.eval import EVAL_EXAMPLE, evaluate
from runtime.cli.model import ModelCheck, check_model, load_pipeline
from runtime.cli.tune import TUNE_EXAMPLE, tune
from runtime.cli.upscale import UPSCALE_EXAMPLE, upscale
from runtime.cli.web import WEB_EXAMPLE, web

if TYPE_CHECKING:
    from runtime.loader import Loader


def make_app(
    load_pipeline: "Loader" = load_pipeline, check_model: ModelCheck = check_model
) -> typer.Typer:
    """Put ``qrun`` together.

    Args:
        load_pipeline: gets a model into memory for the commands that run one.
        check_model: looks at a model's paths before anything is loaded.
    """
    app = typer.Typer(
        name="qrun",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def qrun(*, version: Version = False) -> None:
        """Upscale images by four with a quantized DiT4SR pack."""

    runs_models = {"load_pipeline": load_pipeline, "check_model": check_model}
    app.command(epilog=UPSCALE_EXAMPLE)(grouped_options(upscale, **runs_models))
    app.command("eval", epilog=EVAL_EXAMPLE)(grouped_options(evaluate, **runs_models))
    app.command(epilog=WEB_EXAMPLE)(grouped_options(web, **runs_models))
    app.command(epilog=DOCTOR_EXAMPLE)(doctor)
    app.command(epilog=BENCH_EXAMPLE)(bench)
    app.command(epilog=TUNE_EXAMPLE)(tune)
    return app


app = make_app()
