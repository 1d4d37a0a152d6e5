"""What the unquantized network does with the calibration pictures: inputs and results to learn."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from planner.probe.adjoint import SampledImage
from runtime.network.projection import ActivationBits
from runtime.pipeline import Network, Pipeline, Prompts
from runtime.sampling.sampler import initial_noise


@dataclass(frozen=True, eq=False)
class Evaluations:
    """Several pictures at one step of their sampling loops.

    Attributes:
        step: which step, from 0.
        timestep: 0 ... 1000.
        latent: the noisy latents [B, C, h, w].
        control: the control latents, likewise.
        velocity: the unquantized network's guided velocities, likewise.
    """

    step: int
    timestep: float
    latent: Tensor
    control: Tensor
    velocity: Tensor


@dataclass(frozen=True, eq=False)
class Loops:
    """Several pictures' whole sampling loops.

    Attributes:
        steps: of the loop, as the unquantized network went through it.
        changes: what sigma changes by in every step.
        result: final latents of the unquantized network [B, C, h, w].
    """

    steps: Sequence[Evaluations]
    changes: Sequence[float]
    result: Tensor


class Trajectories:
    """The sampling loops of some pictures, all of one size.

    Args:
        pipeline: the unquantized one.
        controls: control latents [1, C, h, w], of one tile's size at most.
        seed: of the noise; picture i starts from seed + i.
        done: called after every picture.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        controls: Sequence[Tensor],
        seed: int,
        done: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self._controls = torch.cat(list(controls))
        latents, velocities, results = [], [], []
        for index, control in enumerate(controls):
            noise = initial_noise(tuple(control.shape), seed + index)
            image = SampledImage(
                pipeline.network, control, pipeline.prompts, pipeline.sampling, noise
            )
            found = image.run()
            stack = torch.cat(found.latents)  # [steps + 1, C, h, w]
            changes = torch.tensor(found.changes, device=stack.device)[:, None, None, None]
            latents.append(stack[:-1])
            results.append(stack[-1])
            velocities.append(stack.diff(dim=0) / changes)
            self.timesteps = tuple(found.timesteps.tolist())
            self._changes = found.changes
            done(index + 1)
        self._latents, self._velocities = torch.stack(latents), torch.stack(velocities)
        self._results = torch.stack(results)

    def __len__(self) -> int:
        return len(self._controls)

    def draw(self, batch: int, generator: torch.Generator) -> Evaluations:
        """A step, and ``batch`` pictures at it."""
        step = int(torch.randint(len(self.timesteps), (), generator=generator))
        chosen = torch.randint(len(self), (batch,), generator=generator)
        return self.at(step, chosen)

    def draw_loops(self, batch: int, generator: torch.Generator) -> Loops:
        """The whole loops of ``batch`` pictures."""
        return self.loops(torch.randint(len(self), (batch,), generator=generator))

    def loops(self, chosen: Tensor) -> Loops:
        """The whole loops of pictures ``chosen`` [B]."""
        steps = [self.at(step, chosen) for step in range(len(self.timesteps))]
        return Loops(steps, self._changes, self._results[chosen.to(self._results.device)])

    def all_loops(self, batch: int) -> Iterator[Loops]:
        """Every picture's whole loop."""
        for chosen in torch.arange(len(self)).split(batch):
            yield self.loops(chosen)

    def all(self, batch: int) -> Iterator[Evaluations]:
        """Every picture at every step."""
        for step in range(len(self.timesteps)):
            for chosen in torch.arange(len(self)).split(batch):
                yield self.at(step, chosen)

    def at(self, step: int, chosen: Tensor) -> Evaluations:
        """Pictures ``chosen`` [B] at a step."""
        there = chosen.to(self._controls.device)
        return Evaluations(
            step,
            self.timesteps[step],
            self._latents[there, step],
            self._controls[there],
            self._velocities[there, step],
        )


def guided_velocity(
    network: Network,
    inputs: Evaluations,
    prompts: Prompts,
    guidance: float,
    bits: ActivationBits | None,
) -> Tensor:
    """The velocity [B, C, h, w] of a batch, as `runtime.sampling.sampler` guides it."""
    branches = [(prompts.positive_embeds, prompts.positive_pooled)]
    if guidance != 1:
        branches.insert(0, (prompts.negative_embeds, prompts.negative_pooled))
    count, n = len(branches), len(inputs.latent)
    predicted = network(
        inputs.latent.repeat(count, 1, 1, 1),
        inputs.control.repeat(count, 1, 1, 1),
        torch.stack([embeds for embeds, _ in branches]).repeat_interleave(n, 0),
        torch.stack([pooled for _, pooled in branches]).repeat_interleave(n, 0),
        torch.full((count * n,), inputs.timestep, device=inputs.latent.device),
        bits,
    )
    if count == 1:
        return predicted
    negative, positive = predicted.chunk(2)
    guided: Tensor = negative + guidance * (positive - negative)
    return guided
