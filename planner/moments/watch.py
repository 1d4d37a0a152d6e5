"""Second moments of the inputs of a running network's layers, summed up as it runs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from planner.calibrate.layer_watch import TrajectoryWatch


class InputMoments(TrajectoryWatch):
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
        super().__init__()
        self._layers = {name: network.get_submodule(name) for name in weights}
        self._weights = weights
        self.sums: dict[str, Tensor] = {}

    def _register(self) -> Iterator[RemovableHandle]:
        for name, layer in self._layers.items():
            yield layer.register_forward_pre_hook(self._watch(name))

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
