"""What learning wins: packs before and after `qplan learn`, on held-out crops.

    python -m benchmarks.learned --targets W4A4,W2A2 --methods svdquant,qartsr --out docs/results

Every row is a pack of the one-step network: a recipe's, or what a method of `qplan learn` makes of
it. Compared is the final latent with the unquantized network's, from the same noises. Finished rows
stay in the work folder.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from artifacts.pack.reader import open_pack
from benchmarks.quality.compare import device_label, to_stderr
from benchmarks.quality.measure import Bench, Sampling, make_bench, measure
from benchmarks.quality.packs import PackMaker
from benchmarks.quality.rows import Row
from benchmarks.quality.store import Content, RowStore, key_of
from planner.calibrate.settings import CalibrationSettings
from planner.learned.pack import LearningRun, learn_pack
from planner.learned.plan import LEARNED_RECIPES, LearningPlan
from planner.recipes import RECIPES
from runtime.evaluation.statistics import mean_interval
from schemas.errors import QPackError
from schemas.json_io import format_json

MODEL = Path("benchmarks/networks/dit4sr-mini-onestep")
CALIBRATION_PX = 32
"""Side of the crops that are learned from; their enlargement is what an evaluation sees at once."""
RANK = 8


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learned",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--work", type=Path, default=Path("out/learned"), help="for finished rows")
    parser.add_argument("--out", type=Path, help="folder for the results")
    parser.add_argument("--targets", default="W4A4,W2A2", help="default: %(default)s")
    parser.add_argument(
        "--methods",
        default="svdquant,qartsr",
        help="recipes, and methods of `qplan learn`; default: %(default)s",
    )
    parser.add_argument("--seeds", type=int, default=1, help="of learning; default: %(default)s")
    parser.add_argument("--crops", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=1, help="of the sampler; default: %(default)s")
    parser.add_argument("--block-steps", type=int, default=LearningPlan.block_steps)
    parser.add_argument("--whole-steps", type=int, default=LearningPlan.whole_steps)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="of torch")
    return parser.parse_args(argv)


class LearnedRows:
    """Measures rows, or reads them.

    Args:
        arguments: of the command line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.device = torch.device(arguments.device)
        work: Path = arguments.work
        work.mkdir(parents=True, exist_ok=True)
        sampling = Sampling(
            model=arguments.model,
            crops=arguments.crops,
            crop_px=128,
            seeds=3,
            steps=arguments.steps,
            guidance=1.0,
            pictures=False,
        )
        self.bench: Bench = make_bench(sampling, work, _quiet, self.device)
        self.maker = PackMaker(
            sampling.model, work, steps=sampling.steps, guidance=1.0, device=self.device
        )
        self.store = RowStore(work / "rows")

    def row(self, target: str, method: str, seed: int) -> Content:
        """One row: a recipe's pack, or what a method makes of its base's."""
        learns = method in LEARNED_RECIPES
        plan = self._plan(method, seed) if learns else None
        name = f"{target}/{method}" + (f"~{seed}" if seed else "")
        base = LEARNED_RECIPES[method].base if learns else method
        row = Row(target, method, method, "", recipe=base, overrides=_ranks(base))
        key = key_of(
            {
                "row": row.settings(),
                "plan": None if plan is None else asdict(plan),
                "sampling": self.bench.sampling.key_parts(),
            }
        )
        known = self.store.load(name, key)
        if known is not None:
            return known
        to_stderr(f"{name}: building")
        output = self.arguments.work / "learned.qpack"
        began = time.monotonic()
        with self.maker.pack(row) as pack:
            facts: dict[str, Any] = {}
            if plan is not None:
                run = LearningRun(
                    self.maker.images,
                    CalibrationSettings(crop_px=CALIBRATION_PX),
                    self.device,
                    report=to_stderr,
                )
                made = learn_pack(
                    pack, self.maker.checkpoint, output, method, plan, run, force=True
                )
                facts = asdict(made.learned)
            quantized = self.maker.load(pack if plan is None else open_pack(output))
        shutil.rmtree(output, ignore_errors=True)
        built = time.monotonic() - began
        values = measure(self.bench, quantized.network, quantized.bits_at, _quiet)
        content = {
            "row": {"target": target, "method": method, "seed": seed},
            "values": values,
            "built_seconds": round(built, 1),
            "device": device_label(self.device),
            **facts,
        }
        return self.store.save(name, key, content)

    def _plan(self, method: str, seed: int) -> LearningPlan:
        """A method's plan; without learning block by block the whole gets all the steps."""
        recipe = LEARNED_RECIPES[method]
        blocks = len(self.bench.pipeline.network.recomputable)  # type: ignore[attr-defined]
        arguments = self.arguments
        steps = {"block_steps": arguments.block_steps, "whole_steps": arguments.whole_steps}
        if recipe.learning().order == "none":
            steps["whole_steps"] += blocks * steps["block_steps"]
        return recipe.learning(seed=seed, **steps)


def _quiet(_done: int, _total: int) -> None:
    """Report no progress."""


def _ranks(recipe: str) -> dict[str, Any]:
    return {"global_rank": RANK} if "global_rank" not in RECIPES[recipe].choices else {}


def table(contents: Sequence[Content]) -> list[str]:
    """Rows of one target after another, seeds of a method together."""
    lines = [
        "| target | method | latent error, dB | by seed of learning | minutes to build |",
        "|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[Content]] = {}
    for content in contents:
        row = content["row"]
        groups.setdefault((row["target"], row["method"]), []).append(content)
    for (target, method), same in groups.items():
        images = [
            [value for content in same for value in content["values"]["latent_db"][index]]
            for index in range(len(same[0]["values"]["latent_db"]))
        ]
        found = mean_interval([sum(values) / len(values) for values in images])
        seeds = [
            sum(map(sum, content["values"]["latent_db"]))
            / sum(map(len, content["values"]["latent_db"]))
            for content in same
        ]
        minutes = sum(content["built_seconds"] for content in same) / len(same) / 60
        lines.append(
            f"| {target} | {method} | {found.mean:.2f} [{found.low:.2f}, {found.high:.2f}] |"
            f" {', '.join(f'{seed:.2f}' for seed in seeds)} | {minutes:.1f} |"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; returns the exit code."""
    arguments = parse(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    methods = arguments.methods.split(",")
    unknown = [m for m in methods if m not in RECIPES and m not in LEARNED_RECIPES]
    if unknown:
        print(f"error: there is no method {unknown[0]!r}", file=sys.stderr)
        return 2
    try:
        rows = LearnedRows(arguments)
        contents = [
            rows.row(target, method, seed)
            for target in arguments.targets.split(",")
            for method in methods
            for seed in range(arguments.seeds if method in LEARNED_RECIPES else 1)
        ]
    except QPackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(table(contents)))
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "learned.json").write_text(format_json({"rows": contents}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
