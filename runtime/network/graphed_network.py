"""A network as a sampler calls it: one CUDA graph per step where its layers can be captured."""

import torch
from torch import Tensor, nn

from runtime.network.cuda_graphs import GraphedForward, has_graphs
from runtime.network.projection import ActivationBits, QuantizableLinear
from schemas.bit_widths import UNQUANTIZED


class GraphedNetwork:
    """Calls ``network`` through CUDA graphs wherever these give the same.

    They do not where somebody watches a module through a hook, because a replay calls no module;
    nor where a layer's activations stay unquantized, because such layers unpack on the way.

    Args:
        network: a network that passed `can_be_graphed`.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._modules = tuple(network.modules())
        self._graphs = GraphedForward(network)

    def __call__(
        self,
        noisy: Tensor,
        control: Tensor,
        embeds: Tensor,
        pooled: Tensor,
        timesteps: Tensor,
        bits: ActivationBits | None,
    ) -> Tensor:
        """One pass; arguments, result and errors are those of the network's ``forward``."""
        inputs = (noisy, control, embeds, pooled, timesteps)
        if bits is None or UNQUANTIZED in bits.values() or self._is_watched():
            result: Tensor = self._network(*inputs, bits)
            return result
        return self._graphs(*inputs, bits=bits)

    def release(self) -> bool:
        """Give back the memory of all graphs and capture no more; whether there were any."""
        return self._graphs.release()

    def _is_watched(self) -> bool:
        return any(module._forward_hooks or module._forward_pre_hooks for module in self._modules)


def can_be_graphed(network: nn.Module, device: torch.device) -> bool:
    """Whether ``device`` has graphs and all quantized layers of ``network`` can be captured.

    A network without quantized layers is left alone.
    """
    if not has_graphs(device):
        return False
    layers = [module for module in network.modules() if isinstance(module, QuantizableLinear)]
    return bool(layers) and all(layer.can_be_captured for layer in layers)
