"""Rows: networks as recipes and methods make them, measured on held-out crops."""

import argparse
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from artifacts.pack.reader import Pack, open_pack
from benchmarks.learned.structure import Structure, changes
from benchmarks.quality.compare import device_label, to_stderr
from benchmarks.quality.measure import Bench, Sampling, make_bench, measure, measure_baselines
from benchmarks.quality.packs import PackMaker
from benchmarks.quality.rows import Row, recipe_rows
from benchmarks.quality.store import Content, RowStore, key_of
from planner.build.work_folder import WorkFolder
from planner.calibrate.settings import IMAGES, CalibrationSettings
from planner.learned.learn import Learned
from planner.learned.pack import learn_pack
from planner.learned.plan import LearningPlan
from planner.learned.recipes import LEARNED_RECIPES
from planner.learned.session import LearningRun, learn
from runtime.bench.workload import Ranks
from runtime.dit4sr.network import DiT4SR
from runtime.sampling.bit_schedule import BitsAt

CALIBRATION_PX = 32
"""Side of the crops that are learned from; their enlargement is what an evaluation sees at once."""


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
        self.ranks = Ranks(*map(int, arguments.ranks.split("+")))
        self.bench: Bench = replace(
            make_bench(sampling, work, _quiet, self.device), metrics=Structure()
        )
        self.maker = PackMaker(
            sampling.model, work, steps=sampling.steps, guidance=1.0, device=self.device
        )
        self.store = RowStore(work / "rows")

    def row(self, target: str, method: str, seed: int) -> Content | None:
        """One row: a recipe's pack, or what a method makes of its base's.

        None where only finished ones are asked for and it is not.
        """
        learns = method in LEARNED_RECIPES
        plan = self._plan(method, seed) if learns else None
        name = f"{target}/{method}" + (f"~{seed}" if seed else "")
        row = self._row(target, method)
        parts = {
            "row": row.settings(),
            "plan": None if plan is None else _settings(plan),
            "sampling": self.bench.sampling.key_parts(),
        }
        if learns and self.arguments.pictures != IMAGES:
            parts["pictures"] = self.arguments.pictures
        key = key_of(parts)
        known = self.store.load(name, key)
        if known is not None or self.arguments.finished:
            return known
        to_stderr(f"{name}: building")
        began = time.monotonic()
        facts: dict[str, Any] = {"simulated": None if plan is None else plan.simulated}
        with self.maker.pack(row) as pack:
            record = pack.manifest.calibration
            facts["images"] = 0 if record is None else record.images
            if plan is None:
                quantized = self.maker.load(pack)
                facts["built_seconds"] = round(time.monotonic() - began, 1)
                values = measure(self.bench, quantized.network, quantized.bits_at, _quiet)
            else:
                work = WorkFolder(self.arguments.work / f"{method}.{key}.unfinished")
                facts["resumed"] = work.has_plan
                with self._learned(pack, method, plan, work, facts) as (network, bits_at):
                    facts["built_seconds"] = round(time.monotonic() - began, 1)
                    values = measure(self.bench, network, bits_at, _quiet)
        content = {
            "row": {"target": target, "method": method, "seed": seed},
            "values": values | {"fsim_change": changes(values["truth_fsim"], self._unquantized)},
            "device": device_label(self.device),
            **facts,
        }
        return self.store.save(name, key, content)

    @cached_property
    def _unquantized(self) -> list[list[float]]:
        """FSIM of the unquantized network's pictures to the truth."""
        return measure_baselines(self.bench)["full-precision"]["truth_fsim"]

    @contextmanager
    def _learned(
        self,
        pack: Pack,
        method: str,
        plan: LearningPlan,
        work: WorkFolder,
        facts: dict[str, Any],
    ) -> Iterator[tuple[DiT4SR, BitsAt]]:
        """What ``pack`` learns to be, and its bits: read from a pack where one can hold it.

        What an interrupted run had learned is gone on with, and in ``work`` until it is measured.
        """
        settings = CalibrationSettings(self.arguments.pictures, CALIBRATION_PX)
        run = LearningRun(self.maker.images, settings, self.device, work, to_stderr)
        if plan.simulated is None:
            output = self.arguments.work / f"learned-{pack.path.name}"
            try:
                made = learn_pack(
                    pack, self.maker.checkpoint, output, method, plan, run, force=True
                )
                _tell(facts, made.learned, made.manifest.calibration.images)  # type: ignore[union-attr]
                quantized = self.maker.load(open_pack(output))
            finally:
                shutil.rmtree(output, ignore_errors=True)
            yield quantized.network, quantized.bits_at
        else:
            simulated = learn(pack, self.maker.checkpoint, method, plan, run)
            _tell(facts, simulated.learned, simulated.calibration.images)
            with simulated.student.frozen():
                yield simulated.student.network, simulated.student.bits_at  # type: ignore[misc]
        work.remove()

    def _plan(self, method: str, seed: int) -> LearningPlan:
        """A method's plan; what learns only block by block, or only the whole, gets all steps."""
        arguments = self.arguments
        blocks = len(self.bench.pipeline.network.recomputable)  # type: ignore[attr-defined]
        plan = LEARNED_RECIPES[method].learning(seed=seed, batch=arguments.batch)
        if arguments.budget is not None:
            return budgeted(plan, arguments.budget, blocks)
        each, whole = arguments.block_steps, arguments.whole_steps
        if not plan.whole_steps:  # a method that learns block by block alone, or searches
            each, whole = each + whole // blocks, 0
        elif plan.order == "none":
            whole += blocks * each
        return replace(plan, block_steps=each, whole_steps=whole)

    def _row(self, target: str, method: str) -> Row:
        """The row of `benchmarks.quality` that a method is, or starts from."""
        learned = LEARNED_RECIPES.get(method)
        recipe = method if learned is None else learned.base
        rows = recipe_rows(target, self.ranks, second=False)
        names = (recipe, f"svdquant-r{self.ranks.global_rank}")
        found = next((row for row in rows if row.recipe == recipe and row.name in names), None)
        overrides = {} if found is None else found.overrides
        more = {} if learned is None else learned.base_settings
        return Row(target, method, method, "", recipe=recipe, overrides={**overrides, **more})


def budgeted(plan: LearningPlan, budget: int, blocks: int) -> LearningPlan:
    """``plan`` with so many steps that every layer learns in ``budget`` of them.

    Where blocks learn one by one, on their own, each gets as many; half, where all of them learn
    together afterwards. In reversed order a step has the whole network in it, and counts as one.

    Args:
        plan: of a method.
        budget: steps of the optimizer.
        blocks: of the network.
    """
    if plan.order == "none":
        return replace(plan, whole_steps=budget if plan.parts else 0)
    if plan.order == "reversed" and not plan.whole_steps:
        return replace(plan, block_steps=budget // blocks)
    if plan.order == "reversed":
        steps = max(1, budget // 2 // blocks)
        return replace(plan, block_steps=steps, whole_steps=max(1, budget - blocks * steps))
    if not plan.whole_steps:
        return replace(plan, block_steps=budget)
    return replace(plan, block_steps=budget // 2, whole_steps=budget - budget // 2)


def _settings(plan: LearningPlan) -> dict[str, Any]:
    """A plan as JSON values; `result` is left out as before there was a choice of it."""
    found = asdict(plan)
    if plan.result == LearningPlan.result:
        del found["result"]
    return found


def _tell(facts: dict[str, Any], learned: Learned, images: int) -> None:
    facts |= {**asdict(learned), "images": images}


def _quiet(_done: int, _total: int) -> None:
    """Report no progress."""
