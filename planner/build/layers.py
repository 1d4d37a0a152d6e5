"""The layers of one build: measured, then quantized, or taken over from an interrupted build."""

import contextlib
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from artifacts.checkpoint.reader import Checkpoint
from artifacts.family import LinearShape
from artifacts.files.safetensors_io import Header
from planner.allocate.smoothed_layers import Balance
from planner.allocate.vasmp import LayerStatistics
from planner.build.inventory import take_inventory
from planner.build.progress import Progress, Silent
from planner.build.work_folder import WorkFolder
from planner.build.workers import in_order, load_linear_algebra
from planner.moments.kept import SecondMoments
from planner.settings import BuildSettings
from planner.weights.balance import balancing_vector, remaining_error
from planner.weights.layer import (
    QuantizedLayer,
    allocation_variance,
    quantize_layer,
    rotation_for,
)
from schemas.calibration import ChannelStatistics

Result = TypeVar("Result")

KEPT_EVERY = 16
"""Variances are written down after so many: measuring a layer takes little longer than writing."""


@dataclass(frozen=True)
class LayerMaker:
    """Makes the layers of a checkpoint; memory holds one per worker (`planner.build.workers`).

    Attributes:
        checkpoint: the source.
        settings: how weights are quantized.
        shapes: of every layer, by name.
        progress: told about every layer.
        work: an open work folder: what it holds is taken over, what is finished is added; None for
            keeping nothing.
        device: what computes; None for the CPU.
        moments: of layers' inputs, for settings that round or balance by them.
    """

    checkpoint: Checkpoint
    settings: BuildSettings
    shapes: Mapping[str, LinearShape]
    progress: Progress
    work: WorkFolder | None = None
    device: torch.device | None = None
    moments: SecondMoments | None = None

    def statistics(self, names: Sequence[str]) -> list[LayerStatistics]:
        """Variance of every rotated weight, or of its residual: all that VaSMP needs to know."""
        variances = {} if self.work is None else self.work.variances()
        missing = [name for name in names if name not in variances]

        def variance(name: str) -> float:
            # No name for the weight: it would hold on to it while the next is read.
            return allocation_variance(self._weight(name), self.settings)

        with contextlib.closing(self._side_by_side(variance, missing)) as found:
            for count, name in enumerate(self.progress.track(names, "measure"), 1):
                if name not in variances:
                    variances[name] = next(found)
                    if self.work is not None and count % KEPT_EVERY == 0:
                        self.work.keep_variances(variances)
        if missing and self.work is not None:
            self.work.keep_variances(variances)
        return [
            LayerStatistics(
                name,
                self.shapes[name].out_features * self.shapes[name].in_features,
                variances[name],
            )
            for name in names
        ]

    def balance(self, names: Sequence[str]) -> Balance:
        """What smoothing is predicted to do to layers, for settings that balance."""
        assert self.moments is not None  # checked by `check_moments`
        remaining: dict[str, float] = {}
        for owner in dict.fromkeys(self.moments.owners[name] for name in names):
            vector = self._balancing(owner)
            remaining[owner] = 1.0 if vector is None else remaining_error(vector)
        owners = {name: self.moments.owners[name] for name in names}
        return Balance(
            owners,
            {name: self.shapes[name].in_features for name in names},
            {name: remaining[owner] for name, owner in owners.items()},
        )

    def layers(
        self,
        names: Sequence[str],
        bits: Mapping[str, int],
        channels: Mapping[str, ChannelStatistics],
        smoothed: Collection[str] = (),
    ) -> Iterator[tuple[QuantizedLayer, Header | None]]:
        """Every layer at its bits, and the file in the work folder that holds it.

        Args:
            names: of the layers.
            bits: weight bits by name.
            channels: statistics of inputs, for settings that search the smoothing.
            smoothed: those that are, for settings that balance.
        """

        def make(name: str) -> tuple[QuantizedLayer, Header | None]:
            return self._layer(name, bits[name], channels.get(name), name in smoothed)

        with contextlib.closing(self._side_by_side(make, names)) as made:
            for name in self.progress.track(names, "quantize"):
                layer, file = next(made)
                error_db = layer.record.error_db
                shown = "exact" if error_db is None else f"{error_db:.1f} dB"
                self.progress.note(f"{name} {bits[name]} bits, {shown}")
                yield layer, file

    def _side_by_side(
        self, function: Callable[[str], Result], names: Sequence[str]
    ) -> Generator[Result, None, None]:
        """`in_order` for functions that decompose matrices on this maker's device."""
        load_linear_algebra(self.device)
        return in_order(function, names)

    def _layer(
        self, name: str, bits: int, channels: ChannelStatistics | None, smoothed: bool
    ) -> tuple[QuantizedLayer, Header | None]:
        if self.work is not None:
            kept = self.work.layer(
                name, bits, *rotation_for(self.shapes[name].in_features, self.settings)
            )
            if kept is not None:
                return QuantizedLayer(kept.weight, kept.record), kept.header
        bias = f"{name}.bias"
        layer = quantize_layer(
            name,
            self._weight(name),
            self.checkpoint.tensor(bias) if bias in self.checkpoint else None,
            bits,
            self.settings,
            channels,
            None if self.moments is None else self.moments.of(name),
            self._balancing(name) if smoothed else None,
        )
        return layer, None if self.work is None else self.work.keep_layer(layer)

    def _balancing(self, name: str) -> Tensor | None:
        """A layer's smoothing vector, where the settings balance."""
        if self.moments is None or not self.settings.balances:
            return None
        vector = balancing_vector(self.moments.of(name).diagonal())
        return vector if self.device is None else vector.to(self.device)

    def _weight(self, name: str) -> Tensor:
        weight = self.checkpoint.tensor(f"{name}.weight")
        return weight if self.device is None else weight.to(self.device)


def weight_statistics(
    checkpoint: Checkpoint, settings: BuildSettings, progress: Progress | None = None
) -> list[LayerStatistics]:
    """What VaSMP reads of every layer that ``settings`` quantize.

    Raises:
        UsageError: a pattern finds no layer.
        CheckpointError: a tensor is damaged.
    """
    shapes = checkpoint.architecture(settings.variant).quantizable
    maker = LayerMaker(checkpoint, settings, shapes, progress or Silent())
    return maker.statistics(take_inventory(checkpoint, settings).quantized)
