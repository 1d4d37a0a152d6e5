"""What single layers contribute to a derivative, read off while it is computed.

For a network whose output is multiplied by a cotangent, every linear layer `y = x Wᵀ + b` sees the
gradient ``g`` of the product with respect to ``y``, [..., out]. Of the white noise that
quantization is, three things follow to first order, each a squared norm:

- noise of unit variance in ``y``: ``sum |g_n|²`` over tokens n;
- noise in the layer's input, in proportion to every token's own mean square, behind a weight whose
  rows are white with ``|W|² = 1``: ``sum rms_n² |g_n|² / out``;
- white noise in ``W`` with a squared Frobenius norm of 1, which all tokens and steps share:
  ``|sum_t sum_n g_n x_nᵀ|² / (out · in)``, the squared norm of the weight's gradient over its
  elements. It is found from a sketch: with ``R`` [in, k] of independent ±1/sqrt(k),
  ``|A R|²`` has the expectation ``|A|²``, and only ``A R`` [out, k] is held.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from planner.calibrate.layer_watch import LayerWatch

SKETCH_COLUMNS = 32
"""k. The sketch of a gradient of rank 1, the worst case, deviates by sqrt(2 / k) of its norm."""


class LayerGradients(LayerWatch):
    """Watches linear layers over the steps of a derivative; a context manager.

    Args:
        network: whose layers are watched.
        names: the layers, each a module that takes its input first.
        steps: sampling steps.
        cotangents: derivatives that are taken along with one another.
        seed: of the sketches.

    Attributes:
        output: float64 [layers, steps, cotangents], ``sum |g_n|²``.
        activation: float64 [layers, steps, cotangents], ``sum rms_n² |g_n|² / out``.

    Raises:
        AttributeError: the network has no such layer.
    """

    def __init__(
        self, network: nn.Module, names: Sequence[str], *, steps: int, cotangents: int, seed: int
    ) -> None:
        super().__init__()
        self._layers = [network.get_submodule(name) for name in names]
        self._sizes = [layer.get_parameter("weight").numel() for layer in self._layers]
        self._seed = seed
        self._step = 0
        self._cotangent = 0
        self._sketches: dict[tuple[int, torch.device], Tensor] = {}
        shape = (len(names), steps, cotangents)
        self.output = torch.zeros(shape, dtype=torch.float64)
        self.activation = torch.zeros(shape, dtype=torch.float64)
        self._weight: list[list[Tensor | None]] = [[None] * cotangents for _ in names]

    def _register(self) -> Iterator[RemovableHandle]:
        for index, layer in enumerate(self._layers):
            yield layer.register_forward_hook(self._watch(index))

    def at(self, step: int, cotangent: int) -> None:
        """Say which step and cotangent the gradients from here on belong to."""
        self._step, self._cotangent = step, cotangent

    def weight(self) -> Tensor:
        """``|sum g xᵀ|²`` over all steps, per element of the weight.

        Returns:
            float64 [layers, cotangents]; 0 without a gradient.
        """
        return torch.tensor(
            [
                [
                    0.0
                    if sketch is None
                    else float(sketch.square().sum(dtype=torch.float64)) / size
                    for sketch in row
                ]
                for size, row in zip(self._sizes, self._weight, strict=True)
            ],
            dtype=torch.float64,
        )

    def _watch(self, index: int) -> Any:
        def hook(_module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            if not output.requires_grad:
                return
            x: Tensor = arguments[0].detach().flatten(0, -2)  # [tokens, in]
            mean_square = x.float().square().mean(-1)
            projected = x.float() @ self._sketch(x.shape[-1], x.device)  # [tokens, k]
            output.register_hook(
                lambda gradient: self._add(index, mean_square, projected, gradient)
            )

        return hook

    def _add(self, index: int, mean_square: Tensor, projected: Tensor, gradient: Tensor) -> None:
        g = gradient.flatten(0, -2).float()  # [tokens, out]
        squares = g.square().sum(-1)
        place = (index, self._step, self._cotangent)
        self.output[place] += float(squares.sum(dtype=torch.float64))
        weighted = (squares * mean_square).sum(dtype=torch.float64)
        self.activation[place] += float(weighted) / g.shape[-1]
        part = g.T @ projected
        known = self._weight[index][self._cotangent]
        self._weight[index][self._cotangent] = part if known is None else known + part

    def _sketch(self, size: int, device: torch.device) -> Tensor:
        """±1/sqrt(k), [size, k]; the same for all layers of one input size."""
        key = (size, device)
        if key not in self._sketches:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + size)
            signs = torch.randint(2, (size, SKETCH_COLUMNS), generator=generator) * 2.0 - 1.0
            self._sketches[key] = (signs / SKETCH_COLUMNS**0.5).to(device)
        return self._sketches[key]
