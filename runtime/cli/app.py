"""The command ``qrun``: upscale images with a pack, measure results and speed, see the machine.

One module for each command; this one puts them together. Heavy imports stand inside the functions
that need them, so that ``--help`` and a mistyped path are answered at once.
"""

import typer

from runtime.cli.bench import BENCH_EXAMPLE, bench
from runtime.cli.doctor import DOCTOR_EXAMPLE, doctor
from runtime.cli.eval import EVAL_EXAMPLE, evaluate
from runtime.cli.model import load_pipeline as _load_pipeline
from runtime.cli.tune import TUNE_EXAMPLE, tune
from runtime.cli.upscale import UPSCALE_EXAMPLE, upscale

app = typer.Typer(
    name="qrun",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run ``qrun``."""
    app()


@app.callback()
def qrun(context: typer.Context) -> None:
    """Upscale images by four with a quantized DiT4SR pack."""
    # Commands take the loader from here, so that a test can put a model of its own in its place.
    context.obj = _load_pipeline


app.command(epilog=UPSCALE_EXAMPLE)(upscale)
app.command("eval", epilog=EVAL_EXAMPLE)(evaluate)
app.command(epilog=DOCTOR_EXAMPLE)(doctor)
app.command(epilog=BENCH_EXAMPLE)(bench)
app.command(epilog=TUNE_EXAMPLE)(tune)
