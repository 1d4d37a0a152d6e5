"""One quantized linear layer as a pack holds it, and the decoder that says what it means.

    weight = ((codes - (2^b - 1) / 2) * scale + SVD-G + SVD-L) Hᵀ diag(signs) diag(1 / smoothing)

The codes hold the residual of the rotated weight; the factor branches live in the rotated domain
too. Smoothing is there for recipes that scale input channels instead of rotating them. This decoder
is slow and plain on purpose: every kernel is tested against it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from artifacts.codec.bitpack import unpack_codes
from artifacts.codec.factor_pair import FactorPair, global_product, local_product
from artifacts.codec.gaussian_quantizer import dequantize_rows
from artifacts.codec.hadamard import Rotation
from artifacts.codec.layer_parts import LAYER_PARTS, expected_parts
from artifacts.files.safetensors_io import TensorSpec
from schemas.bit_widths import UNQUANTIZED
from schemas.manifest import LayerRecord


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """A weight [out, in] as codes, scales and low-rank factors.

    Its tensors are the rows of `artifacts.codec.layer_parts.LAYER_PARTS`, which has dtypes, shapes
    and meanings; what a layer lacks is None. Block (p, q) of the weight, rows from p s_o and
    columns from q s_i, gets ``outer(local_up[p, q], local_down[p, q])`` of SVD-L.

    Attributes:
        name: the layer's name in the network.
        out_features, in_features: shape of the weight.
        weight_bits: bits of a code, 1 ... 8.
        rotation: of the inputs, by size ``in``.
        token_step: factor on the step that the pack's rule gives a token of the layer's input.
        signs: float32 [in] of +1 and -1, applied before the rotation; None for all +1. Layers of
            one size share them, so they are no row of the table.

    Raises:
        ValueError: a tensor's dtype or shape does not fit the others; the message has the name.
    """

    name: str
    out_features: int
    in_features: int
    weight_bits: int
    codes: Tensor
    scale: Tensor
    rotation: Rotation
    global_up: Tensor | None = None
    global_down: Tensor | None = None
    global_scale: Tensor | None = None
    local_up: Tensor | None = None
    local_down: Tensor | None = None
    local_scale: Tensor | None = None
    bias: Tensor | None = None
    signs: Tensor | None = None
    smoothing: Tensor | None = None
    token_step: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.weight_bits <= 8:
            raise ValueError(f"{self.name}: codes of {self.weight_bits} bits; it must be 1 to 8")
        self._check_groups()
        if self.rotation.size != self.in_features:
            raise ValueError(f"{self.name}: rotation of size {self.rotation.size}")
        if self.signs is not None and (
            self.rotation.is_identity or self.signs.shape != (self.in_features,)
        ):
            raise ValueError(f"{self.name}: signs {tuple(self.signs.shape)} fit no rotation")
        try:
            expected = expected_parts(self.record(), has_bias=self.bias is not None)
        except ValidationError as cause:
            reasons = "; ".join(problem["msg"] for problem in cause.errors())
            raise ValueError(f"{self.name}: {reasons}") from None
        for part, tensor in self.parts().items():
            actual, must_be = None if tensor is None else TensorSpec.of(tensor), expected.get(part)
            if actual != must_be:
                raise ValueError(
                    f"{self.name}.{part} is {actual or 'missing'}, but must be"
                    f" {must_be or 'left out'}"
                )

    def _check_groups(self) -> None:
        """Parts that one field of the record announces are all there or all missing."""
        groups: dict[str, list[str]] = {}
        for name, row in LAYER_PARTS.items():
            if row.record_field is not None and not row.narrow_only:
                groups.setdefault(row.record_field, []).append(name)
        for names in groups.values():
            if len({getattr(self, name) is None for name in names}) > 1:
                raise ValueError(f"{self.name}: {' and '.join(names)} come only together")

    @property
    def global_factors(self) -> FactorPair | None:
        """SVD-G as it is stored; None without."""
        if self.global_up is None or self.global_down is None:
            return None
        return FactorPair(self.global_up, self.global_down, self.global_scale)

    @property
    def local_factors(self) -> FactorPair | None:
        """SVD-L as it is stored; None without."""
        if self.local_up is None or self.local_down is None:
            return None
        return FactorPair(self.local_up, self.local_down, self.local_scale)

    @property
    def global_rank(self) -> int:
        """Rank of SVD-G; 0 without."""
        return 0 if self.global_down is None else self.global_down.shape[0]

    @property
    def local_block(self) -> tuple[int, int] | None:
        """Block shape (s_o, s_i) of SVD-L; None without."""
        pair = self.local_factors
        return None if pair is None else (pair.up.shape[-1], pair.down.shape[-1])

    @property
    def factor_bits(self) -> int:
        """Bits of the factors' numbers: 8 where there are integers among them, else 16."""
        ups = (part for part in (self.global_up, self.local_up) if part is not None)
        return 8 if any(up.dtype == torch.int8 for up in ups) else UNQUANTIZED

    def record(
        self,
        *,
        error_db: float | None = None,
        global_energy: float | None = None,
        local_energy: float | None = None,
        note: str = "",
    ) -> LayerRecord:
        """The manifest's entry for this layer, with what only its maker knows as arguments."""
        return LayerRecord(
            weight_bits=self.weight_bits,
            in_features=self.in_features,
            out_features=self.out_features,
            rotation="none" if self.rotation.is_identity else str(self.in_features),
            global_rank=self.global_rank,
            local_block=self.local_block,
            factor_bits=self.factor_bits,
            smoothing=self.smoothing is not None,
            token_step=self.token_step,
            error_db=error_db,
            global_energy=global_energy,
            local_energy=local_energy,
            note=note,
        )

    def unpacked_codes(self) -> Tensor:
        """Codes uint8 [out, in]."""
        return unpack_codes(self.codes, self.weight_bits, self.out_features, self.in_features)

    def residual(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The quantized part of the rotated weight, ``dtype`` [out, in]."""
        # Half-integer times float32 scale: exact in float64, rounded once in float32.
        return dequantize_rows(self.unpacked_codes(), self.scale.to(dtype), self.weight_bits)

    def low_rank(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """SVD-G + SVD-L, the unquantized part of the rotated weight, ``dtype`` [out, in]."""
        total = self.scale.new_zeros((self.out_features, self.in_features), dtype=dtype)
        if self.global_factors is not None:
            total += global_product(self.global_factors, dtype)
        if self.local_factors is not None:
            total += local_product(self.local_factors, dtype)
        return total

    def decode_rotated(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The weight in the rotated domain, ``W_H`` [out, in]."""
        return self.residual(dtype) + self.low_rank(dtype)

    def decode(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The weight in its original domain, ``dtype`` [out, in], so that ``y = x weightᵀ``."""
        weight = self.rotation.invert(self.decode_rotated(dtype), self.signs).to(dtype)
        return weight if self.smoothing is None else weight / self.smoothing.to(dtype)

    def parts(self) -> dict[str, Tensor | None]:
        """Every part of `LAYER_PARTS` by name, None for what the layer lacks."""
        return {part: getattr(self, part) for part in LAYER_PARTS}

    def tensors(self) -> dict[str, Tensor]:
        """The layer's own tensors under the pack's names; the signs are shared and not here."""
        return {f"{self.name}.{part}": t for part, t in self.parts().items() if t is not None}

    @classmethod
    def from_tensors(
        cls,
        name: str,
        record: LayerRecord,
        tensors: Mapping[str, Tensor],
        rotation: Rotation,
        signs: Tensor | None = None,
    ) -> "QuantizedWeight":
        """Undo `tensors` and `record`.

        Raises:
            KeyError: a part is missing that every layer has.
            ValueError: as the class.
        """
        parts: dict[str, Any] = {
            part: tensors[f"{name}.{part}"] if row.is_required else tensors.get(f"{name}.{part}")
            for part, row in LAYER_PARTS.items()
        }
        return cls(
            name=name,
            out_features=record.out_features,
            in_features=record.in_features,
            weight_bits=record.weight_bits,
            rotation=rotation,
            signs=signs,
            token_step=record.token_step,
            **parts,
        )
