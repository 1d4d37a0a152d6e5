"""What both training stages share: seeded crops, and an optimizer loop that survives interruption.

Batches depend on the step alone, so a run that was stopped and continued sees the same data as one
that was not.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.degradation import Degradation, random_crop, resize
from training.photos import Image, dead_leaves, training_photos

PHOTO_SHARE = 0.6
SAVE_EVERY = 250


class Crops:
    """Random crops of training photos and dead leaves, reproducible from a seed and a step."""

    def __init__(self, seed: int, leaves: int) -> None:
        self.seed = seed
        rng = np.random.default_rng(seed)
        self.photos = training_photos(rng)
        self.leaves = [
            dead_leaves(256, self.photos[rng.integers(len(self.photos))], rng)
            for _ in range(leaves)
        ]

    def one(self, size: int, rng: np.random.Generator) -> Image:
        """One crop [size, size, 3]."""
        pool = self.photos if rng.random() < PHOTO_SHARE else self.leaves
        return random_crop(pool[rng.integers(len(pool))], size, rng)

    def images(self, count: int, size: int, step: int) -> Tensor:
        """Batch [count, 3, size, size] of ``step``, values 0 ... 1."""
        rng = np.random.default_rng((self.seed, size, step))
        return to_batch([self.one(size, rng) for _ in range(count)])

    def pairs(self, count: int, size: int, step: int) -> tuple[Tensor, Tensor]:
        """Sharp crops and their degraded copies enlarged back, both [count, 3, size, size]."""
        rng = np.random.default_rng((self.seed, size, step, 1))
        sharp = [self.one(size, rng) for _ in range(count)]
        small = [Degradation.draw(rng).apply(image) for image in sharp]
        return to_batch(sharp), to_batch([resize(image, size, size) for image in small])


def to_batch(images: list[Image]) -> Tensor:
    """[H, W, 3] pictures -> one tensor [B, 3, H, W]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


class CosineTraining:
    """AdamW with warm-up and cosine decay, an average of the weights, and a resumable state file.

    Args:
        model: trained in place; ends with the averaged weights where there is an average.
        state_file: written every ``SAVE_EVERY`` steps and read back when it exists.
        steps: optimizer steps in all.
        learning_rate: its peak, reached after 200 steps.
        ema_decay: decay of the exponential average of the weights; None for no average. In a short
            run the average still carries early weights, while the last ones have settled anyway
            because the rate has decayed.
    """

    def __init__(
        self,
        model: nn.Module,
        state_file: Path,
        *,
        steps: int,
        learning_rate: float,
        ema_decay: float | None,
    ) -> None:
        self.model, self.state_file, self.steps = model, state_file, steps
        self.average = (
            None
            if ema_decay is None
            else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema_decay))
        )
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)

    def _rate(self, step: int) -> float:
        decay = 0.5 * (1 + np.cos(np.pi * min(step / self.steps, 1)))
        return float(min(step / 200, 1) * (0.02 + 0.98 * decay))

    def run(self, loss_of: Callable[[int], Tensor]) -> None:
        """Minimise ``loss_of(step)``, printing the mean loss of every 100 steps."""
        start, losses, began = self._resume(), [], time.monotonic()
        for step in range(start, self.steps):
            torch.manual_seed(step)
            self.optimizer.zero_grad(set_to_none=True)
            loss = loss_of(step)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.schedule.step()
            if self.average is not None:
                self.average.update_parameters(self.model)
            losses.append(loss.item())
            if (step + 1) % 100 == 0:
                pace = (time.monotonic() - began) / (step + 1 - start)
                print(f"step {step + 1}: loss {np.mean(losses):.4f}, {pace:.2f} s/step", flush=True)
                losses.clear()
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == self.steps:
                self._save(step + 1)
        if self.average is not None:
            self.model.load_state_dict(self.average.module.state_dict())

    def _parts(self) -> dict[str, Any]:
        """What a resumed run needs, each with state_dict and load_state_dict."""
        parts = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}
        return parts if self.average is None else {**parts, "average": self.average}

    def _save(self, step: int) -> None:
        self.state_file.parent.mkdir(parents=True, exist_ok=True)
        state = {name: part.state_dict() for name, part in self._parts().items()}
        partial = self.state_file.with_suffix(".partial")
        torch.save({"step": step, **state}, partial)
        partial.replace(self.state_file)

    def _resume(self) -> int:
        if not self.state_file.exists():
            return 0
        state = torch.load(self.state_file, weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        return int(state["step"])
