"""Second moments of the inputs of a running network's layers, summed up as it runs."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn


class InputMoments:
    """Watches some layers over one sampling trajectory; a context manager.

    Works on any module that takes its input first.

    Args:
        network: whose layers are watched.
        weights: layer name -> what each step of the trajectory counts.

    Attributes:
        sums: layer name -> ``sum_t w_t sum_n x_n x_nᵀ`` over tokens n, float32 [in, in], on the
            network's device.

    Raises:
        AttributeError: the network has no such layer.
    """

    def __init__(self, network: nn.Module, weights: Mapping[str, Sequence[float]]) -> None:
        self._layers = {name: network.get_submodule(name) for name in weights}
        self._weights = weights
        self._step = -1
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self.sums: dict[str, Tensor] = {}

    def __enter__(self) -> Self:
        for name, layer in self._layers.items():
            self._hooks.append(layer.register_forward_pre_hook(self._watch(name)))
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

    def next_step(self) -> None:
        """Say that the calls from here on belong to the next step."""
        self._step += 1

    def _watch(self, name: str) -> Any:
        def hook(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
            x = arguments[0].detach().flatten(0, -2).float()
            weight = self._weights[name][self._step]
            known = self.sums.get(name)
            if known is None:
                self.sums[name] = weight * (x.mT @ x)
            else:
                known.addmm_(x.mT, x, alpha=weight)

        return hook
