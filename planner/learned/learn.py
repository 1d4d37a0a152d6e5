"""The loop: stage by stage, seeded by step, and continued where it was stopped.

A step draws a step of the sampling loop and some pictures at it, and compares with what the
unquantized network makes of the same inputs: a block's outputs, the velocity, or both, each by its
squared error over its own energy.
"""

import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from planner.build.work_folder import LEARNED
from planner.learned.adaround import beta_at
from planner.learned.block_samples import (
    BlockSample,
    block_output,
    block_sample,
    tensors_of,
)
from planner.learned.groups import Groups, GroupSearch
from planner.learned.linear import LearnedLinear, LearnedPart, Trainable
from planner.learned.plan import LearningPlan
from planner.learned.stages import Stage, stages
from planner.learned.student import Student
from planner.learned.trajectories import Evaluations, Loops, Trajectories, guided_velocity
from runtime.network.family import LatentNetwork
from runtime.pipeline import Prompts

STATE_FILE = LEARNED
SAVE_EVERY = 25
LARGEST_GRADIENT = 1.0
RATE_OF_PART: dict[LearnedPart, float] = {
    "steps": 1.0,
    "factors": 1.0,
    "rounding": 4.0,
    "smoothing": 1.0,
    "weights": 4.0,
    "adaround": 25.0,
    "bounds": 10.0,
    "timestep-bounds": 10.0,
    "transform": 2.5,
}
"""On the plan's rate. An update starts at 0 and has to reach a good part of a step; AdaRound's
variable crosses 0 from as far away as 2.4; a bound is one number a layer."""
ROUNDING_WEIGHT = 0.1
"""Of AdaRound's regulariser beside a loss that is relative."""
BOUNDS: tuple[LearnedPart, ...] = ("bounds", "timestep-bounds")
SEARCHED_STEPS = 4
"""Steps of the sampling loop at which groups are compared, at most."""


@dataclass(frozen=True)
class Learned:
    """What came of it.

    Attributes:
        before_db, after_db: ``10 log10(|v|² / |v - v_q|²)`` of the plan's results for pictures that
            were kept apart: velocities, all steps together, or final latents.
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
        if self.plan.groups:
            self._choose_groups(pictures)
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
        """How near the quantized results are to the unquantized, in dB."""
        self.student.activate(range(len(self.student.groups)))
        if self.plan.result == "latent":
            loops = pictures.all_loops(self.plan.batch)
            error = self._error((self._final_latent(one), one.result) for one in loops)
        else:
            error = self._velocity_error(pictures.all(self.plan.batch))
        return -10 * math.log10(error) if error else math.inf

    def _velocity_error(self, every: Iterable[Evaluations]) -> float:
        network = self.student.network
        return self._error((self._velocity(network, inputs), inputs.velocity) for inputs in every)

    @torch.no_grad()
    def _error(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
        """Squared error of all that is found over the energy of all that is wanted."""
        signal = noise = 0.0
        with self.student.frozen():
            for found, wanted in pairs:
                signal += float(wanted.double().square().sum())
                noise += float((found - wanted).double().square().sum())
        return noise / signal

    def _choose_groups(self, pictures: Trajectories) -> None:
        """Search the sizes of groups that leave the least error, and set them."""
        count = min(SEARCHED_STEPS, len(pictures.timesteps))
        chosen = torch.arange(min(self.plan.batch, len(pictures)))
        steps = torch.linspace(0, len(pictures.timesteps) - 1, count).round().int().tolist()
        inputs = [pictures.at(step, chosen) for step in steps]

        def error(groups: Groups) -> float:
            self.student.set_groups(groups)
            return self._velocity_error(inputs)

        shapes = {
            layer.name: (layer.weight.shape[0], layer.weight.shape[1])
            for layer in self.student.layers
        }
        work = None if self._state_file is None else self._state_file.parent
        search = GroupSearch(shapes, error, self.plan.seed, work=work, report=self._report)
        self.student.set_groups(search.run(self.plan.groups))

    def _stage(
        self,
        number: int,
        stage: Stage,
        pictures: Trajectories,
        resumed: dict[str, Any] | None,
        losses: dict[str, float],
    ) -> float:
        layers = self._learning(stage)
        trainables = [t for layer in layers for t in self._trainables(stage, layer)]
        if not trainables:  # a block without such layers
            return 0.0
        for layer in self.student.layers:
            for trainable in layer.trainables():
                trainable.tensor.requires_grad_(False)
            layer.train(layer in layers and "adaround" in stage.parts)
        for trainable in trainables:
            trainable.tensor.requires_grad_(True)
        optimizer = torch.optim.Adam(
            [{"params": [t.tensor], "lr": self._rate(t)} for t in trainables]
        )
        first, total = 0, 0.0
        if resumed is not None and resumed["optimizer"] is not None:
            optimizer.load_state_dict(resumed["optimizer"])
            first, total = resumed["step"], resumed["total"]
        self.student.activate(stage.active)
        samples = self._samples(stage, number, pictures)
        began = time.monotonic()
        for step in range(first, stage.steps):
            factor = 0.5 * (1 + math.cos(math.pi * step / stage.steps))
            for group, trainable in zip(optimizer.param_groups, trainables, strict=True):
                group["lr"] = self._rate(trainable) * factor
            generator = torch.Generator().manual_seed(
                self.plan.seed + 1_000_003 * number + 1009 * step
            )
            if samples:
                index = int(torch.randint(len(samples), (), generator=generator))
                loss = self._block_loss(stage, samples[index])
            elif stage.block is None and self.plan.result == "latent":
                loops = pictures.draw_loops(self.plan.batch, generator)
                loss = relative_error(self._final_latent(loops), loops.result)
            else:
                loss = self._loss(stage, pictures.draw(self.plan.batch, generator))
            loss = loss + self._undecided(layers, step / stage.steps)
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
        for layer in layers:
            layer.eval()
        self._save(number + 1, 0, 0.0, None, {**losses, stage.name: total / stage.steps})
        return total / stage.steps

    def _learning(self, stage: Stage) -> list[LearnedLinear]:
        groups = [self.student.groups[index] for index in sorted(stage.learning)]
        return [layer for group in groups for layer in group]

    def _trainables(self, stage: Stage, layer: LearnedLinear) -> list[Trainable]:
        """What learns in a stage; bounds of tokens do so in every layer."""
        chosen = re.search(stage.layers, layer.name) is not None
        return [
            trainable
            for trainable in layer.trainables()
            if trainable.part in stage.parts and (chosen or trainable.part in BOUNDS)
        ]

    def _undecided(self, layers: Sequence[LearnedLinear], progress: float) -> Tensor | float:
        """AdaRound's regulariser, of the layers whose rounding learns."""
        beta = beta_at(progress)
        learning = [x.rounding for x in layers if x.training and x.rounding is not None]
        if beta is None or not learning:
            return 0.0
        return ROUNDING_WEIGHT * torch.stack([r.undecided(beta) for r in learning]).mean()

    def _rate(self, trainable: Trainable) -> float:
        return self.plan.rate * RATE_OF_PART[trainable.part] * trainable.unit

    def _samples(self, stage: Stage, number: int, pictures: Trajectories) -> list[BlockSample]:
        """What a block learns from that is judged by its output alone; none in other stages."""
        if stage.block is None or stage.by_result:
            return []
        network, found = self.student.network, []
        for index in range(self.plan.block_draws):
            generator = torch.Generator().manual_seed(
                self.plan.seed + 1_000_003 * number + 1009 * index + 1
            )
            step = index * len(pictures.timesteps) // self.plan.block_draws
            chosen = torch.randint(len(pictures), (self.plan.batch,), generator=generator)
            inputs = pictures.at(step, chosen)
            sample = block_sample(
                network.recomputable[stage.block],
                partial(self._velocity, network, inputs),
                self.teacher.recomputable[stage.block],
                partial(self._velocity, self.teacher, inputs),
            )
            found.append(sample)
        return found

    def _block_loss(self, stage: Stage, sample: BlockSample) -> Tensor:
        assert stage.block is not None
        block = self.student.network.recomputable[stage.block]
        found = tensors_of(block(*sample.arguments, **sample.keywords))
        return mean_relative_error(found, sample.wanted)

    def _loss(self, stage: Stage, inputs: Evaluations) -> Tensor:
        if stage.block is None:
            velocity = self._velocity(self.student.network, inputs)
            return relative_error(velocity, inputs.velocity)
        network, block = self.student.network, stage.block
        found, result = block_output(
            network.recomputable[block], lambda: self._velocity(network, inputs), whole=True
        )
        with torch.no_grad():
            wanted, _ = block_output(
                self.teacher.recomputable[block],
                lambda: self._velocity(self.teacher, inputs),
                whole=False,
            )
        assert result is not None
        error = relative_error(result, inputs.velocity)
        return mean_relative_error(found, wanted) + self.plan.result_weight * error

    def _final_latent(self, loops: Loops) -> Tensor:
        """What the quantized network's own loop ends in, from the same noise [B, C, h, w].

        Backwards every step is computed again, so that one step's activations are kept.
        """
        latent = loops.steps[0].latent
        for inputs, change in zip(loops.steps, loops.changes, strict=True):
            velocity = checkpoint(self._velocity_at, latent, inputs, use_reentrant=False)
            latent = latent + change * velocity
        return latent

    def _velocity_at(self, latent: Tensor, inputs: Evaluations) -> Tensor:
        """The quantized network's velocity of another latent at the step of ``inputs``."""
        return self._velocity(self.student.network, replace(inputs, latent=latent))

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


def mean_relative_error(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """The mean of `relative_error` over several tensors."""
    errors = [relative_error(one, other) for one, other in zip(found, wanted, strict=True)]
    return torch.stack(errors).mean()
