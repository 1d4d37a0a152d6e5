"""``qplan learn``: a pack whose layers learn from pictures.

Heavy imports stand inside the function, so that ``--help`` is answered at once.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from artifacts.cli.exit_codes import exit_on_error
from artifacts.cli.option_groups import grouped_options
from artifacts.cli.output import print_json, say, tell
from planner.cli.build_options import PassOptions, UnfinishedOptions
from planner.cli.options import Debug, Json, warn
from schemas.errors import UsageError

if TYPE_CHECKING:
    from planner.learned.plan import LearningPlan

LEARN_EXAMPLE = """
Examples:

qplan build model/ --target W2A2 --recipe svdquant --calib photos/ -o svdquant.qpack

qplan learn svdquant.qpack --checkpoint model/ --calib photos/ -o qartsr.qpack
"""


@dataclass(frozen=True)
class PlanOptions:
    """What is learned, and for how long."""

    panel: ClassVar[str] = "Learning"

    method: Annotated[
        str,
        typer.Option(
            help="qartsr, qartsr-{forward,whole,blocks,no-rounding,no-smoothing}, finetune,"
            " q-diffusion, ptq4dit or passionsr; `qplan recipes` says what each is."
        ),
    ] = "qartsr"
    order: Annotated[str | None, typer.Option(help="Of the blocks: reversed, forward or none.")] = (
        None
    )
    block_steps: Annotated[int | None, typer.Option(help="Optimizer steps per block.")] = None
    whole_steps: Annotated[
        int | None, typer.Option(help="Optimizer steps of all blocks together afterwards.")
    ] = None
    parts: Annotated[
        str | None,
        typer.Option(
            help="What is learned: steps, factors, rounding, smoothing, weights, adaround,"
            " bounds; with commas."
        ),
    ] = None
    update_rank: Annotated[
        int | None, typer.Option(help="Rank of the update inside the rounding.")
    ] = None
    batch: Annotated[int | None, typer.Option(help="Pictures per step.")] = None
    rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None
    learning_seed: Annotated[int | None, typer.Option(help="Seed of batches and updates.")] = None

    def plan(self) -> "LearningPlan":
        """The method's plan with these options in it.

        Raises:
            UsageError: there is no such method, or a value is out of range.
        """
        from planner.learned.recipes import LEARNED_RECIPES

        if self.method not in LEARNED_RECIPES:
            raise UsageError(
                f"there is no method {self.method!r}", hint="one of: " + ", ".join(LEARNED_RECIPES)
            )
        given: dict[str, Any] = {k: v for k, v in asdict(self).items() if v is not None}
        del given["method"]
        if "parts" in given:
            given["parts"] = tuple(part.strip() for part in given["parts"].split(","))
        if "learning_seed" in given:
            given["seed"] = given.pop("learning_seed")
        return LEARNED_RECIPES[self.method].learning(**given)


@grouped_options
def learn(
    pack: Annotated[Path, typer.Argument(metavar="PACK", help="A .qpack folder.")],
    *,
    checkpoint: Annotated[Path, typer.Option(help="The pack's source.")],
    calib: Annotated[
        Path, typer.Option(metavar="DIR", help="Low-resolution images to learn from.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The new pack.")],
    options: PlanOptions,
    calibration_pass: PassOptions,
    unfinished: UnfinishedOptions,
    force: Annotated[bool, typer.Option("--force", help="Replace an older pack.")] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Let the layers of a pack learn what the unquantized network does on some pictures.

    Steps of rows, low-rank factors, the rounding and smoothing are learned, blocks one by one from
    the last and then all together (QArtSR), in a network of one step or of many. The result is a
    pack like any other, of the same bits and bytes, and runs as fast. An interrupted run goes on
    when the command is repeated.
    """
    with exit_on_error(debug=debug):
        plan = options.plan()
        unfinished.check()
        from artifacts.checkpoint.reader import open_checkpoint
        from artifacts.pack.reader import open_pack
        from artifacts.pack.writer import check_output
        from planner.build.left_over import cleared_when_refused
        from planner.build.work_folder import claimed
        from planner.calibrate.device import choose_device
        from planner.inspect.inspection import summary
        from planner.learned.pack import learn_pack
        from planner.learned.session import LearningRun

        with cleared_when_refused(out):
            check_output(out, force=force)
        opened = open_pack(pack, verify_hashes=True)
        source = open_checkpoint(checkpoint)
        device, _ = choose_device(calibration_pass.device)
        with claimed(out):
            folder = unfinished.work(out, tell)
            run = LearningRun(calib, calibration_pass.drawn(), device, folder, tell)
            result = learn_pack(opened, source, out, options.method, plan, run, force=force)
            folder.remove()
        for warning in result.warnings:
            warn(warning)
        learned = result.learned
        if json_output:
            facts = {"pack": str(out), "warnings": result.warnings, "learned": asdict(learned)}
            print_json({**facts, **summary(result.manifest)})
        else:
            say(
                f"{out}: velocities of pictures kept apart at {learned.before_db:.2f} dB before,"
                f" {learned.after_db:.2f} dB after"
            )
