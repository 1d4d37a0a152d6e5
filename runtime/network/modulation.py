"""Modulation layers: computed, or looked up in a table.

Layers that read nothing but timestep and pooled prompt give one vector for each pair of the two. A
pack may hold these vectors for its own steps and prompts instead of the layers, or beside them.
`install_table` puts a `TableIndex` into a network and a `TabledLayer` in the place of every such
layer; blocks apply them through `project_modulations` and do not know the difference.

Rows are chosen on the device, without looking at the values, so that a CUDA graph can hold it: one
graph serves all timesteps and prompts. For the same reason a network that has table and layers
always computes the layers, and then takes the table's row where there is one. A pair that the table
lacks gives NaN in a network without the layers, and never another row; whoever samples looks
beforehand (`runtime.sampling.table_steps`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from runtime.network.projection import ActivationBits, project_all

STEP_TOLERANCE = 5e-4
"""Timesteps this near are one: eight float32 steps at 1000, and no more than half of what lies
between two steps of the densest schedule (10,000 steps, shift 100)."""


@dataclass(frozen=True)
class Rows:
    """Where the results of modulation layers stand in their tables.

    Attributes:
        index: row of every element of the batch, int64 [B]; the last row where there is none.
        known: whether there is one, bool [B].
    """

    index: Tensor
    known: Tensor


@dataclass(frozen=True)
class Conditioning:
    """What modulation layers read.

    Attributes:
        vector: the input of the layers [B, C]; None in a network that has the table alone.
        rows: None in a network without a table.
    """

    vector: Tensor | None
    rows: Rows | None = None


class TableIndex(nn.Module):
    """Finds the rows of timesteps and pooled prompts.

    Args:
        timesteps: of the rows, [T].
        pooled: the prompts that have rows, [P, D], in the dtype that the network is given them.
        complete: whether the network also has the layers, for everything else.
    """

    def __init__(self, timesteps: Tensor, pooled: Tensor, *, complete: bool) -> None:
        super().__init__()
        self.complete = complete
        self.register_buffer("timesteps", timesteps.float(), persistent=False)
        self.register_buffer("pooled", pooled, persistent=False)

    def forward(self, timestep: Tensor, pooled: Tensor) -> Rows:
        """Rows of ``timestep`` [B] and ``pooled`` [B, D]."""
        steps, prompts = self.get_buffer("timesteps"), self.get_buffer("pooled")
        distance, step = (timestep.float()[:, None] - steps).abs().min(dim=1)
        equal = (pooled[:, None] == prompts).all(-1)  # [B, P]
        known = (distance <= STEP_TOLERANCE) & equal.any(-1)
        index = equal.int().argmax(-1) * len(steps) + step
        return Rows(torch.where(known, index, len(prompts) * len(steps)), known)


class TabledLayer(nn.Module):
    """A modulation layer's results, and the layer where there is one.

    Args:
        rows: [prompts, timesteps, out].
        layer: what computes the same; None for nothing.
    """

    def __init__(self, rows: Tensor, layer: nn.Module | None) -> None:
        super().__init__()
        flat = rows.flatten(0, 1)
        nothing = torch.full_like(flat[:1], float("nan"))
        self.register_buffer("table", torch.cat([flat, nothing]), persistent=False)
        self.layer = layer

    def look_up(self, rows: Rows, dtype: torch.dtype) -> Tensor:
        """The results [B, out]; NaN where there is no row."""
        return self.get_buffer("table").index_select(0, rows.index).to(dtype)


def project_modulations(
    layers: Sequence[nn.Module],
    conditioning: Conditioning,
    bits: ActivationBits | None,
    dtype: torch.dtype,
) -> list[Tensor]:
    """Results [B, out] of modulation layers that read the same, in ``dtype``.

    Args:
        layers: each as in `project`, or a `TabledLayer`.
        conditioning: what they read.
        bits: this timestep's activation bits by layer name; None for unquantized.
        dtype: of the network's activations, which the tables need not have.
    """
    rows, vector = conditioning.rows, conditioning.vector
    if rows is None:
        assert vector is not None
        return project_all(layers, vector, bits)
    tabled = [layer for layer in layers if isinstance(layer, TabledLayer)]
    assert len(tabled) == len(layers)
    found = [layer.look_up(rows, dtype) for layer in tabled]
    if vector is None:
        return found
    computing = [layer.layer for layer in tabled if layer.layer is not None]
    computed = project_all(computing, vector, bits)
    known = rows.known[:, None]
    return [torch.where(known, row, value) for row, value in zip(found, computed, strict=True)]


def install_table(
    network: nn.Module,
    index: TableIndex,
    tables: Mapping[str, Tensor],
) -> None:
    """Let ``network`` look its modulations up.

    Args:
        network: a `LatentNetwork` whose modulation layers are those of ``tables``.
        index: finds rows.
        tables: layer name -> its rows [prompts, timesteps, out].
    """
    for name, rows in tables.items():
        layer = network.get_submodule(name) if index.complete else None
        network.set_submodule(name, TabledLayer(rows, layer))
    network.table_index = index
