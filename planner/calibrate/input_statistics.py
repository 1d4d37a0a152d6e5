"""Measure what the layers of a running network are fed, without keeping any of it.

Works on any module that takes its input first: an ``nn.Linear`` or a quantized layer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from planner.calibrate.layer_watch import TrajectoryWatch


@dataclass(frozen=True, eq=False)
class LayerInputs:
    """Statistics of one trajectory.

    Attributes:
        mean_squares: float64 [layers, steps], mean over tokens and channels of the square (Eq. 17).
        maximum: per layer, float64 [in], largest magnitude over all steps; empty unless asked for.
        channel_mean_squares: per layer, float64 [in], over all steps; empty unless asked for.
    """

    mean_squares: Tensor
    maximum: list[Tensor]
    channel_mean_squares: list[Tensor]


class InputStatistics(TrajectoryWatch):
    """Watches the inputs of some layers over one sampling trajectory; a context manager.

    Args:
        network: whose layers are watched.
        names: the layers.
        steps: sampling steps of the trajectory.
        channels: also measure every channel.

    Raises:
        AttributeError: the network has no such layer.
    """

    def __init__(
        self, network: nn.Module, names: Sequence[str], steps: int, *, channels: bool = False
    ) -> None:
        super().__init__()
        self._layers = [network.get_submodule(name) for name in names]
        self._names = list(names)
        self._steps = steps
        self._channels = channels
        self._sums = torch.zeros(len(names), steps, dtype=torch.float64)
        self._counts = torch.zeros(len(names), steps, dtype=torch.float64)
        self._maximum: list[Tensor] = [torch.zeros(())] * len(names)
        self._channel_sums: list[Tensor] = [torch.zeros(())] * len(names)
        self._tokens = [0] * len(names)

    def _register(self) -> Iterator[RemovableHandle]:
        for index, layer in enumerate(self._layers):
            yield layer.register_forward_pre_hook(
                lambda _module, arguments, index=index: self._add(index, arguments[0])
            )

    def next_step(self) -> None:
        """Say that the calls from here on belong to the next step.

        Raises:
            ValueError: the trajectory has more steps than was said.
        """
        super().next_step()
        if self._step >= self._steps:
            raise ValueError(f"more than {self._steps} steps")

    def result(self) -> LayerInputs:
        """Give the statistics of the whole trajectory.

        Raises:
            ValueError: a layer was not run at every step.
        """
        if not bool((self._counts > 0).all()):
            layer, step = (self._counts == 0).nonzero()[0].tolist()
            raise ValueError(f"layer {self._names[layer]} was not run at step {step + 1}")
        channel_means = [
            total.cpu() / tokens
            for total, tokens in zip(self._channel_sums, self._tokens, strict=True)
        ]
        return LayerInputs(
            self._sums / self._counts,
            [maximum.cpu() for maximum in self._maximum] if self._channels else [],
            channel_means if self._channels else [],
        )

    def _add(self, index: int, x: Tensor) -> None:
        """Add one call's input [..., in] to the current step's sums."""
        values = x.detach().flatten(0, -2)
        # Squares in float32 lose nothing that matters; their sum over 10^7 values would.
        squares = values.float().square()
        self._sums[index, self._step] += squares.sum(dtype=torch.float64).item()
        self._counts[index, self._step] += values.numel()
        if self._channels:
            self._tokens[index] += len(values)
            total = squares.sum(0, dtype=torch.float64)
            largest = values.abs().amax(0).double()
            if self._maximum[index].dim() == 0:
                self._maximum[index], self._channel_sums[index] = largest, total
            else:
                self._maximum[index] = torch.maximum(self._maximum[index], largest)
                self._channel_sums[index] = self._channel_sums[index] + total
