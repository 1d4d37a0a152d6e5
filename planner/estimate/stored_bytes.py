"""True bytes: of a source checkpoint, and of a pack before it is built.

A pack's layers are sized by the table of their parts (`artifacts.codec.layer_parts`), applied to
the records that a build would write. Only SVD-L is bounded instead: its block shapes depend on the
weights, and all that is known beforehand is that no shape takes more numbers than Eq. 7 allows
(`artifacts.codec.block_shapes.local_budget`).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod

from artifacts.codec.block_shapes import local_budget
from artifacts.codec.hadamard import Rotation
from artifacts.codec.layer_parts import expected_parts
from artifacts.family import Architecture
from planner.build.inventory import left_to_table
from planner.estimate.accounting import network_size
from planner.settings import BuildSettings
from planner.weights.layer import planned_record

UNQUANTIZED_BYTES = 2
"""Of a bfloat16 number, as checkpoints are published and packs keep what they do not quantize."""
PROMPTS = 2
"""That a table of modulations has rows of: the positive and the negative one."""
_KINDS = {
    "codes": "codes",
    **dict.fromkeys(("global_up", "global_down", "global_scale"), "global_factors"),
}
"""Part -> field of `PackBytes`; all others are vectors, counted with the scales."""


@dataclass(frozen=True)
class CheckpointBytes:
    """Tensor data of the source checkpoint in bf16.

    Attributes:
        parameters: all parameters, active or not.
        position_table: the table that checkpoints carry as well, though it can be rebuilt.
    """

    parameters: int
    position_table: int


def checkpoint_bytes(architecture: Architecture) -> CheckpointBytes:
    """Size the checkpoint of a network in bf16; file headers are not counted."""
    return CheckpointBytes(
        parameters=UNQUANTIZED_BYTES * network_size(architecture).parameters,
        position_table=UNQUANTIZED_BYTES
        * sum(prod(architecture.tensor_shapes[name]) for name in architecture.family.rebuilt),
    )


@dataclass(frozen=True)
class PackBytes:
    """Tensor data of a pack's transformer, by kind; ``local_factors`` is an upper bound.

    Attributes:
        codes: packed codes of the residuals.
        scales: vectors of a layer: the float32 step of every output channel, and the smoothing
            where there is one.
        global_factors: SVD-G, in bf16, or in 8 bits with its scales.
        local_factors: SVD-L likewise: the whole budget of Eq. 7, ``r_L (out + in)`` numbers per
            layer.
        unquantized: every other active tensor in bf16, biases of quantized layers included. The
            position table is rebuilt by the reader and takes no room.
        rotation_signs: one bit per input feature, for every input width that is rotated.
        modulation_table: 16 bits for every result of a modulation layer, prompt and step.
    """

    codes: int
    scales: int
    global_factors: int
    local_factors: int
    unquantized: int
    rotation_signs: int
    modulation_table: int = 0

    @property
    def total(self) -> int:
        """Sum of all kinds."""
        return (
            self.codes
            + self.scales
            + self.global_factors
            + self.local_factors
            + self.unquantized
            + self.rotation_signs
            + self.modulation_table
        )


def pack_bytes(
    architecture: Architecture,
    weight_bits: Mapping[str, int],
    active_tensors: Collection[str],
    settings: BuildSettings,
    steps: int = 0,
) -> PackBytes:
    """Size the transformer of a pack before it is built.

    Args:
        architecture: the network.
        weight_bits: layer name -> bits of every quantized layer.
        active_tensors: parameters that the pack must hold (``network_probe``).
        settings: ranks, rotation, smoothing, and what is stored of modulations.
        steps: of the table of modulations, where there is one.
    """
    linears = architecture.quantizable
    sizes = {"codes": 0, "scales": 0, "global_factors": 0}
    local_numbers = 0
    for name, bits in weight_bits.items():
        out_features, in_features = linears[name]
        record = planned_record(out_features, in_features, bits, settings)
        # Biases are among the active tensors.
        for part, spec in expected_parts(record, has_bias=False).items():
            sizes[_KINDS.get(part, "scales")] += spec.nbytes
        local_numbers += local_budget(out_features, in_features, settings.local_rank)
    shapes = architecture.parameter_shapes
    tabled = left_to_table(architecture, settings)
    plain = sum(
        prod(shapes[name])
        for name in active_tensors
        if name.removesuffix(".weight") not in weight_bits and name not in tabled.tensors
    )
    return PackBytes(
        **sizes,
        local_factors=settings.factor_bits // 8 * local_numbers,
        unquantized=UNQUANTIZED_BYTES * plain,
        rotation_signs=_sign_bytes({linears[name].in_features for name in weight_bits}, settings),
        modulation_table=table_bytes(architecture, steps) if settings.makes_table else 0,
    )


def table_bytes(architecture: Architecture, steps: int) -> int:
    """Size of a table of modulations for both prompts and so many steps."""
    outputs = sum(shape.out_features for shape in architecture.modulations.layers.values())
    return UNQUANTIZED_BYTES * outputs * PROMPTS * steps


def _sign_bytes(widths: Collection[int], settings: BuildSettings) -> int:
    if not (settings.rotation and settings.rotation_signs):
        return 0
    return sum(-(-width // 8) for width in widths if not Rotation.for_size(width).is_identity)
