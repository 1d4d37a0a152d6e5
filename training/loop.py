"""The optimizer loop: seeded by step, and continued where it was stopped.

Randomness and batches depend on the step alone, so a run that was stopped and continued ends in the
same weights as one that was not.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.averages import Averages
from training.graphed import GraphedStep, Step
from training.schedule import Schedule

SAVE_EVERY = 100
LOG_EVERY = 25
LARGEST_GRADIENT = 1.0

Batch = tuple[Tensor, ...]


class Training:
    """A model in training, with a state file.

    Before the learning rate decays the state is kept once more (``NAME.stable.pt``): a longer run
    continues from there.

    Args:
        model: trained in place.
        optimizers: stepped together.
        schedule: factor on every optimizer's learning rate.
        averages: of the model's weights.
        state_file: read back when it exists.
        save_every: steps between two states.
        graphs: take steps as CUDA graphs. The model is on a GPU, the optimizers can be captured,
            and the loss depends on nothing but the batch and torch's random numbers.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: list[Optimizer],
        schedule: Schedule,
        averages: Averages,
        state_file: Path,
        *,
        save_every: int = SAVE_EVERY,
        graphs: bool = False,
    ) -> None:
        self.model, self.optimizers, self.schedule = model, optimizers, schedule
        self.averages, self.state_file = averages, state_file
        self.save_every = save_every
        self.stable_file = state_file.with_suffix(".stable.pt")
        self.step = 0
        self.finished = False
        self._graphs = graphs
        self._peaks = [[float(group["lr"]) for group in o.param_groups] for o in optimizers]

    def run(
        self,
        batch_of: Callable[[int], Batch],
        loss_of: Callable[..., Tensor],
        *,
        minutes: float = float("inf"),
    ) -> bool:
        """Minimise ``loss_of(*batch_of(step))`` up to the schedule's end.

        Args:
            batch_of: the tensors of a step; it may use torch's random numbers.
            loss_of: the loss, a scalar; likewise.
            minutes: stop, with the state saved, after this wall time.

        Returns:
            Whether the schedule's end was reached, as ``finished`` says afterwards too.
        """
        self.resume()
        began = logged = time.monotonic()
        losses: list[Tensor] = []
        update = self._update_by(loss_of)
        while self.schedule(self.step) > 0:
            if time.monotonic() - began > minutes * 60:
                self.save(self.state_file)
                return False
            if self.step == self.schedule.decay_start:
                self.save(self.stable_file)
            losses.append(self._take_step(batch_of, update))
            if self.step % LOG_EVERY == 0:
                mean = torch.stack(losses).mean().item()  # waits for a GPU to finish
                pace, logged = (time.monotonic() - logged) / len(losses), time.monotonic()
                print(f"step {self.step}: loss {mean:.5f}, {pace * 1000:.1f} ms/step", flush=True)
                losses.clear()
            if self.step % self.save_every == 0:
                self.save(self.state_file)
        self.save(self.state_file)
        self.finished = True
        return True

    def _take_step(self, batch_of: Callable[[int], Batch], update: Step) -> Tensor:
        torch.manual_seed(self.step)
        self._set_rates(self.schedule(self.step))
        # A GPU would have to finish for its value, and stand idle while the next step is prepared.
        loss = update(*batch_of(self.step))
        self.averages.update(self.model, self.step)
        self.step += 1
        return loss

    def _set_rates(self, factor: float) -> None:
        for optimizer, peaks in zip(self.optimizers, self._peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                if isinstance(group["lr"], Tensor):  # a graph knows it by its place
                    group["lr"].fill_(peak * factor)
                else:
                    group["lr"] = peak * factor

    def _update_by(self, loss_of: Callable[..., Tensor]) -> Step:
        """One optimizer step on a batch, which returns the loss."""

        def update(*batch: Tensor) -> Tensor:
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss = loss_of(*batch)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), LARGEST_GRADIENT)
            for optimizer in self.optimizers:
                optimizer.step()
            return loss.detach()

        return GraphedStep(update, torch.cuda.Stream()) if self._graphs else update

    def save(self, file: Path) -> None:
        """Write the whole state to ``file``, which appears whole or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        state: dict[str, Any] = {
            "step": self.step,
            "model": self.model.state_dict(),
            "averages": self.averages.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        partial = file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(file)

    def resume(self) -> None:
        """Continue from the state file, or from the stable state if the run was prolonged."""
        if self.stable_file.exists():
            decay_began = int(torch.load(self.stable_file, weights_only=True)["step"])
            decay_begins = self.schedule.decay_start
            if decay_begins is None or decay_begins > decay_began:
                self.stable_file.replace(self.state_file)
        if not self.state_file.exists():
            return
        state = torch.load(self.state_file, weights_only=True)
        self.step = int(state["step"])
        self.model.load_state_dict(state["model"])
        self.averages.load_state_dict(state["averages"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
