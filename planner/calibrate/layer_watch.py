"""Looking at the layers of a network while it runs, and the trajectory that is looked at."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from runtime.pipeline import Pipeline
from runtime.sampling.sampler import initial_noise
from runtime.upscale import encode_image


class LayerWatch(ABC):
    """Watches layers by hooks; a context manager, at whose end the hooks are gone."""

    def __init__(self) -> None:
        self._hooks: list[RemovableHandle] = []

    @abstractmethod
    def _register(self) -> Iterator[RemovableHandle]:
        """Register a hook with every layer."""

    def __enter__(self) -> Self:
        self._hooks.extend(self._register())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()


class TrajectoryWatch(LayerWatch):
    """Watches layers step by step of one sampling trajectory."""

    def __init__(self) -> None:
        super().__init__()
        self._step = -1

    def next_step(self) -> None:
        """Say that the calls from here on belong to the next step."""
        self._step += 1


@torch.inference_mode()
def sample_watched(pipeline: Pipeline, watch: TrajectoryWatch, rgb: Tensor, seed: int) -> None:
    """Carry a picture [1, 3, H, W], 0 ... 1, through all steps; activations are not quantized.

    Args:
        pipeline: with its own prompts and settings.
        watch: of its network.
        rgb: the picture.
        seed: of the noise that sampling starts from.
    """
    encoded = encode_image(pipeline, rgb, pipeline.sampling)
    control = encoded.control

    def unquantized(_timestep: float) -> None:
        watch.next_step()

    with watch:
        pipeline.sample(
            pipeline.network,
            control.to(pipeline.dtype),
            encoded.condition or pipeline.prompts,
            pipeline.sampling,
            noise=initial_noise(tuple(control.shape), seed),
            patch_size=pipeline.patch_size,
            bits_at=unquantized,
        )
