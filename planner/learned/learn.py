"""The loop: stage by stage, seeded by step, and continued where it was stopped.

A step draws a step of the sampling loop and some pictures at it, and compares with what the
unquantized network makes of the same inputs: a block's outputs, the velocity, or both, each by its
squared error over its own energy.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from planner.learned.linear import Trainable
from planner.learned.plan import LearningPlan
from planner.learned.stages import Stage, stages
from planner.learned.student import Student, output_of
from planner.learned.trajectories import Evaluations, Trajectories, guided_velocity
from runtime.network.family import LatentNetwork
from runtime.pipeline import Prompts

STATE_FILE = "learning.pt"
SAVE_EVERY = 25
LARGEST_GRADIENT = 1.0
RATE_OF_PART = {"steps": 1.0, "factors": 1.0, "rounding": 4.0, "smoothing": 1.0}
"""On the plan's rate. An update starts at 0 and has to reach a good part of a step."""


@dataclass(frozen=True)
class Learned:
    """What came of it.

    Attributes:
        before_db, after_db: ``10 log10(|v|² / |v - v_q|²)`` of the velocities of pictures that were
            kept apart, all steps together.
        losses: mean loss of every stage, by name.
    """

    before_db: float
    after_db: float
    losses: dict[str, float]


class Learner:
    """Teaches a student what the unquantized network does.

    Args:
        student: learns, in place.
        teacher: the unquantized network.
        prompts: of both.
        guidance: of the sampler.
        plan: how.
        work: an existing folder for the state of an unfinished run; None for keeping none.
        report: told what is going on, one line at a time.
    """

    def __init__(
        self,
        student: Student,
        teacher: LatentNetwork,
        prompts: Prompts,
        guidance: float,
        plan: LearningPlan,
        *,
        work: Path | None = None,
        report: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.student, self.teacher, self.plan = student, teacher, plan
        self._prompts, self._guidance, self._report = prompts, guidance, report
        self._state_file = None if work is None else work / STATE_FILE

    def run(self, pictures: Trajectories, kept_apart: Trajectories) -> Learned:
        """Learn from ``pictures``, and judge by those ``kept_apart``."""
        before = self.fidelity_db(kept_apart)
        state = self._read_state()
        losses: dict[str, float] = state["losses"]
        plan = stages(self.plan, len(self.student.groups))
        for number, stage in enumerate(plan):
            if number < state["stage"]:
                continue
            resumed = state if number == state["stage"] else None
            losses[stage.name] = self._stage(number, stage, pictures, resumed, losses)
            self._report(
                f"{number + 1}/{len(plan)} {stage.name}: loss {losses[stage.name]:.5f},"
                f" {stage.steps} steps"
            )
        self.student.activate(range(len(self.student.groups)))
        return Learned(before, self.fidelity_db(kept_apart), losses)

    @torch.no_grad()
    def fidelity_db(self, pictures: Trajectories) -> float:
        """How near the quantized velocities are to the unquantized, in dB."""
        self.student.activate(range(len(self.student.groups)))
        signal = noise = 0.0
        for inputs in pictures.all(self.plan.batch):
            difference = self._velocity(self.student.network, inputs) - inputs.velocity
            signal += float(inputs.velocity.double().square().sum())
            noise += float(difference.double().square().sum())
        return 10 * math.log10(signal / noise) if noise else math.inf

    def _stage(
        self,
        number: int,
        stage: Stage,
        pictures: Trajectories,
        resumed: dict[str, Any] | None,
        losses: dict[str, float],
    ) -> float:
        trainables = self._learning(stage)
        optimizer = torch.optim.Adam(
            [{"params": [t.tensor], "lr": self._rate(t)} for t in trainables]
        )
        first, total = 0, 0.0
        if resumed is not None and resumed["optimizer"] is not None:
            optimizer.load_state_dict(resumed["optimizer"])
            first, total = resumed["step"], resumed["total"]
        self.student.activate(stage.active)
        began = time.monotonic()
        for step in range(first, stage.steps):
            factor = 0.5 * (1 + math.cos(math.pi * step / stage.steps))
            for group, trainable in zip(optimizer.param_groups, trainables, strict=True):
                group["lr"] = self._rate(trainable) * factor
            generator = torch.Generator().manual_seed(
                self.plan.seed + 1_000_003 * number + 1009 * step
            )
            loss = self._loss(stage, pictures.draw(self.plan.batch, generator))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            tensors = [t.tensor for t in trainables]
            torch.nn.utils.clip_grad_norm_(tensors, LARGEST_GRADIENT)
            optimizer.step()
            total += float(loss.detach())
            done, left = step + 1 - first, stage.steps - step - 1
            if (step + 1) % SAVE_EVERY == 0 and left:
                self._save(number, step + 1, total, optimizer, losses)
                seconds = (time.monotonic() - began) / done * left
                self._report(
                    f"{stage.name}: {step + 1} of {stage.steps} steps, {seconds:.0f} s left"
                )
        self._save(number + 1, 0, 0.0, None, {**losses, stage.name: total / stage.steps})
        return total / stage.steps

    def _learning(self, stage: Stage) -> list[Trainable]:
        groups = [self.student.groups[index] for index in sorted(stage.learning)]
        return [t for group in groups for layer in group for t in layer.trainables()]

    def _rate(self, trainable: Trainable) -> float:
        return self.plan.rate * RATE_OF_PART[trainable.part] * trainable.unit

    def _loss(self, stage: Stage, inputs: Evaluations) -> Tensor:
        if stage.block is None:
            velocity = self._velocity(self.student.network, inputs)
            return relative_error(velocity, inputs.velocity)
        network = self.student.network
        with output_of(network.recomputable[stage.block]) as found:
            velocity = self._velocity(network, inputs)
        with torch.no_grad(), output_of(self.teacher.recomputable[stage.block]) as wanted:
            self._velocity(self.teacher, inputs)
        errors = [relative_error(a, b) for a, b in zip(found[0], wanted[0], strict=True)]
        loss = torch.stack(errors).mean()
        if stage.by_result:
            loss = loss + self.plan.result_weight * relative_error(velocity, inputs.velocity)
        return loss

    def _velocity(self, network: LatentNetwork, inputs: Evaluations) -> Tensor:
        bits = self.student.bits_at(inputs.timestep)
        return guided_velocity(network, inputs, self._prompts, self._guidance, bits)

    def _tensors(self) -> Sequence[Tensor]:
        return [t.tensor for layer in self.student.layers for t in layer.trainables()]

    def _save(
        self,
        stage: int,
        step: int,
        total: float,
        optimizer: torch.optim.Optimizer | None,
        losses: dict[str, float],
    ) -> None:
        if self._state_file is None:
            return
        state = {
            "plan": asdict(self.plan),
            "stage": stage,
            "step": step,
            "total": total,
            "optimizer": None if optimizer is None else optimizer.state_dict(),
            "tensors": [tensor.detach().cpu() for tensor in self._tensors()],
            "losses": losses,
        }
        partial = self._state_file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._state_file)

    def _read_state(self) -> dict[str, Any]:
        """The state of an unfinished run of this very plan, its tensors taken over; else a new."""
        new: dict[str, Any] = {"stage": 0, "step": 0, "total": 0.0, "optimizer": None, "losses": {}}
        if self._state_file is None or not self._state_file.is_file():
            return new
        state: dict[str, Any] = torch.load(self._state_file, weights_only=True)
        if state["plan"] != asdict(self.plan):
            return new
        with torch.no_grad():
            for tensor, kept in zip(self._tensors(), state["tensors"], strict=True):
                tensor.copy_(kept)
        self._report("going on with an unfinished run")
        return state


def relative_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared error over the energy of what is wanted, a scalar."""
    energy = wanted.square().sum().clamp_min(torch.finfo(torch.float32).tiny)
    return (found - wanted).square().sum() / energy
