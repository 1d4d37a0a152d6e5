"""The command ``qplan``: from estimates and builds of packs to looking at them and pushing them.

One module for each command or two; this one puts them together.
"""

import typer

from artifacts.cli.version import Version
from planner.cli.build import BUILD_EXAMPLE, build
from planner.cli.calibrate import CALIBRATE_EXAMPLE, calibrate
from planner.cli.diff import DIFF_EXAMPLE, diff
from planner.cli.estimate import ESTIMATE_EXAMPLE, estimate
from planner.cli.export import EXPORT_EXAMPLE, export
from planner.cli.inspect import INSPECT_EXAMPLE, VERIFY_EXAMPLE, inspect, verify
from planner.cli.learn import LEARN_EXAMPLE, learn
from planner.cli.probe import PROBE_EXAMPLE, probe
from planner.cli.push import PUSH_EXAMPLE, push
from planner.cli.recipes import RECIPES_EXAMPLE, recipes
from planner.cli.regrid import REGRID_EXAMPLE, regrid
from planner.cli.report import REPORT_EXAMPLE, report

app = typer.Typer(
    name="qplan",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def qplan(*, version: Version = False) -> None:
    """Plan and build quantized DiT4SR packs."""


app.command(epilog=ESTIMATE_EXAMPLE)(estimate)
app.command(epilog=BUILD_EXAMPLE)(build)
app.command(epilog=RECIPES_EXAMPLE)(recipes)
app.command(epilog=CALIBRATE_EXAMPLE)(calibrate)
app.command(epilog=PROBE_EXAMPLE)(probe)
app.command(epilog=LEARN_EXAMPLE)(learn)
app.command(epilog=REGRID_EXAMPLE)(regrid)
app.command(epilog=INSPECT_EXAMPLE)(inspect)
app.command(epilog=REPORT_EXAMPLE)(report)
app.command(epilog=DIFF_EXAMPLE)(diff)
app.command(epilog=VERIFY_EXAMPLE)(verify)
app.command(epilog=PUSH_EXAMPLE)(push)
app.command(epilog=EXPORT_EXAMPLE)(export)
