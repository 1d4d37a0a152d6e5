"""The tensors of a quantized layer, one row each: what the pack format says of them.

Everything that handles a layer's tensors without computing with them goes by this table: the record
in memory, files of packs and of unfinished builds, checks of shapes and values, predicted sizes,
docs/pack-format.md. Only who makes a tensor and who computes with it calls it by its name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from artifacts.codec.bitpack import packed_bytes
from artifacts.codec.values import Values
from artifacts.files.safetensors_io import TensorSpec
from schemas.bit_widths import UNQUANTIZED
from schemas.manifest import LayerRecord


@dataclass(frozen=True)
class LayerPart:
    """One tensor of a quantized layer ``L``, stored as ``L.name``.

    Attributes:
        name: the last part of the tensor's name, and the field of `QuantizedWeight`.
        dtype: the safetensors header's word.
        narrow_dtype: the same where the record's factors have 8 bits; None for no difference.
        narrow_only: whether the part is there only where they have.
        dimensions: the shape in symbols: [out, in] is the weight's, r SVD-G's rank, P x Q blocks of
            [s_o, s_i] are SVD-L's.
        shape: the same in exact integers, of a record that has the part.
        meaning: one line.
        record_field: the record's field that says whether the part is there, by being neither 0 nor
            false nor null; None where the record does not say.
        optional: whether a layer may lack the part although no field of its record says so: then
            the network decides.
        values: what the numbers may be.
    """

    name: str
    dtype: str
    dimensions: str
    shape: Callable[[LayerRecord], tuple[int, ...]]
    meaning: str
    record_field: str | None = None
    optional: bool = False
    values: Values = "finite"
    narrow_dtype: str | None = None
    narrow_only: bool = False

    @property
    def is_required(self) -> bool:
        """Whether every quantized layer has it."""
        return self.record_field is None and not self.optional

    def is_present(self, record: LayerRecord, *, in_network: bool) -> bool:
        """Whether a layer of this record has it.

        Args:
            record: of the layer.
            in_network: whether the network's layer has what the record says nothing of.
        """
        if self.narrow_only and record.factor_bits == UNQUANTIZED:
            return False
        if self.record_field is not None:
            return bool(getattr(record, self.record_field))
        return in_network or not self.optional

    def spec(self, record: LayerRecord) -> TensorSpec:
        """Dtype and shape in a layer of this record, which has the part.

        Raises:
            ValueError: the layer is kept in 16 bits and so has no codes.
        """
        narrow = None if record.factor_bits == UNQUANTIZED else self.narrow_dtype
        return TensorSpec(narrow or self.dtype, self.shape(record))


def _codes(record: LayerRecord) -> tuple[int, ...]:
    return (packed_bytes(record.weight_bits, record.out_features, record.in_features),)


def _local_up(record: LayerRecord) -> tuple[int, ...]:
    rows, columns = record.local_block or (1, 1)
    return (record.out_features // rows, record.in_features // columns, rows)


def _local_down(record: LayerRecord) -> tuple[int, ...]:
    rows, columns = record.local_block or (1, 1)
    return (record.out_features // rows, record.in_features // columns, columns)


LAYER_PARTS: dict[str, LayerPart] = {
    part.name: part
    for part in (
        LayerPart(
            "codes",
            "U8",
            "[bytes]",
            _codes,
            "residual codes, packed as below",
            values="any",
        ),
        LayerPart(
            "scale",
            "F32",
            "[out]",
            lambda record: (record.out_features,),
            "step of each output channel",
            values="finite, not negative",
        ),
        LayerPart(
            "global_up",
            "BF16",
            "[out, r]",
            lambda record: (record.out_features, record.global_rank),
            "left vectors of SVD-G times singular values",
            record_field="global_rank",
            narrow_dtype="I8",
        ),
        LayerPart(
            "global_down",
            "BF16",
            "[r, in]",
            lambda record: (record.global_rank, record.in_features),
            "right vectors of SVD-G",
            record_field="global_rank",
            narrow_dtype="I8",
        ),
        LayerPart(
            "global_scale",
            "F32",
            "[r]",
            lambda record: (record.global_rank,),
            "what each pair of 8-bit vectors of SVD-G is multiplied by",
            record_field="global_rank",
            narrow_only=True,
            values="finite, not negative",
        ),
        LayerPart(
            "local_up",
            "BF16",
            "[P, Q, s_o]",
            _local_up,
            "left vectors of SVD-L times singular values, one per block",
            record_field="local_block",
            narrow_dtype="I8",
        ),
        LayerPart(
            "local_down",
            "BF16",
            "[P, Q, s_i]",
            _local_down,
            "right vectors of SVD-L, one per block",
            record_field="local_block",
            narrow_dtype="I8",
        ),
        LayerPart(
            "local_scale",
            "F32",
            "[P, Q]",
            lambda record: _local_up(record)[:2],
            "what each pair of 8-bit vectors of SVD-L is multiplied by",
            record_field="local_block",
            narrow_only=True,
            values="finite, not negative",
        ),
        LayerPart(
            "bias",
            "BF16",
            "[out]",
            lambda record: (record.out_features,),
            "bias",
            optional=True,
        ),
        LayerPart(
            "smoothing",
            "F32",
            "[in]",
            lambda record: (record.in_features,),
            "what inputs are divided by, channel by channel, before anything else",
            record_field="smoothing",
            values="finite, positive",
        ),
    )
}
"""By name, in the order of the format's description."""


def expected_parts(record: LayerRecord, *, has_bias: bool = True) -> dict[str, TensorSpec]:
    """Part -> dtype and shape of what a quantized layer consists of, in exact integers.

    Args:
        record: of the layer.
        has_bias: whether the network's layer has one; the record does not say.

    Raises:
        ValueError: the layer is kept in 16 bits and so has no codes.
    """
    return {
        name: part.spec(record)
        for name, part in LAYER_PARTS.items()
        if part.is_present(record, in_network=has_bias)
    }


def expected_tensors(
    name: str, record: LayerRecord, *, has_bias: bool = True
) -> dict[str, TensorSpec]:
    """`expected_parts` of the layer called ``name``, by the tensors' names in a pack."""
    parts = expected_parts(record, has_bias=has_bias)
    return {f"{name}.{part}": spec for part, spec in parts.items()}


def allowed_values(tensor: str, layers: Mapping[str, LayerRecord]) -> Values:
    """What the numbers of a float tensor of a pack may be.

    Args:
        tensor: its name in the pack.
        layers: the manifest's records; all tensors but those of quantized layers may be anything
            finite.
    """
    layer, _, part = tensor.rpartition(".")
    is_part = part in LAYER_PARTS and layer in layers and layers[layer].is_quantized
    return LAYER_PARTS[part].values if is_part else "finite"
