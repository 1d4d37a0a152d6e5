"""One quantized linear layer as a pack holds it, and the decoder that says what it means.

    weight = ((codes - (2^b - 1) / 2) * scale + SVD-G + SVD-L) Hᵀ diag(signs) diag(1 / smoothing)

The codes hold the residual of the rotated weight; the factor branches live in the rotated domain
too. Smoothing is there for recipes that scale input channels instead of rotating them. This decoder
is slow and plain on purpose: every kernel is tested against it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pydantic import ValidationError
from torch import Tensor

from artifacts.codec.bitpack import packed_bytes, unpack_codes
from artifacts.codec.gaussian_quantizer import dequantize_rows
from artifacts.codec.hadamard import Rotation
from artifacts.files.safetensors_io import TensorSpec
from schemas.manifest import LayerRecord


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """A weight [out, in] as codes, scales and low-rank factors.

    Attributes:
        name: the layer's name in the network.
        out_features, in_features: shape of the weight.
        weight_bits: bits of a code, 1 ... 8.
        codes: packed codes, uint8 [bytes], see `artifacts.codec.bitpack`.
        scale: step of every output channel, float32 [out].
        global_up, global_down: SVD-G, bfloat16 [out, r] and [r, in], singular values in ``up``;
            None without.
        local_up, local_down: SVD-L, bfloat16 [P, Q, s_o] and [P, Q, s_i], singular values in
            ``up``: block (p, q) of the weight, rows from p s_o and columns from q s_i, gets
            ``outer(local_up[p, q], local_down[p, q])``; None without.
        bias: bfloat16 [out], or None.
        rotation: of the inputs, by size ``in``.
        signs: float32 [in] of +1 and -1, applied before the rotation; None for all +1.
        smoothing: float32 [in], finite and positive: inputs are divided by it, channel by channel,
            before anything else happens to them; None for all 1.

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
    local_up: Tensor | None = None
    local_down: Tensor | None = None
    bias: Tensor | None = None
    signs: Tensor | None = None
    smoothing: Tensor | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.weight_bits <= 8:
            raise ValueError(f"{self.name}: codes of {self.weight_bits} bits; it must be 1 to 8")
        if (self.global_up is None) != (self.global_down is None):
            raise ValueError(f"{self.name}: global_up and global_down come only together")
        if (self.local_up is None) != (self.local_down is None):
            raise ValueError(f"{self.name}: local_up and local_down come only together")
        if self.rotation.size != self.in_features:
            raise ValueError(f"{self.name}: rotation of size {self.rotation.size}")
        if self.signs is not None and (
            self.rotation.is_identity or self.signs.shape != (self.in_features,)
        ):
            raise ValueError(f"{self.name}: signs {tuple(self.signs.shape)} fit no rotation")
        try:
            expected = expected_tensors(self.name, self.record(), has_bias=self.bias is not None)
        except ValidationError as cause:
            reasons = "; ".join(problem["msg"] for problem in cause.errors())
            raise ValueError(f"{self.name}: {reasons}") from None
        actual = {name: TensorSpec.of(tensor) for name, tensor in self.tensors().items()}
        for name, spec in expected.items():
            if actual[name] != spec:
                raise ValueError(f"{name} is {actual[name]}, but must be {spec}")

    @property
    def global_rank(self) -> int:
        """Rank of SVD-G; 0 without."""
        return 0 if self.global_down is None else self.global_down.shape[0]

    @property
    def local_block(self) -> tuple[int, int] | None:
        """Block shape (s_o, s_i) of SVD-L; None without."""
        if self.local_up is None or self.local_down is None:
            return None
        return self.local_up.shape[-1], self.local_down.shape[-1]

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
            smoothing=self.smoothing is not None,
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
        if self.global_up is not None and self.global_down is not None:
            total += self.global_up.to(dtype) @ self.global_down.to(dtype)
        if self.local_up is not None and self.local_down is not None:
            # [P, Q, s_o] x [P, Q, s_i] -> [P, s_o, Q, s_i], which is [out, in] in memory.
            blocks = torch.einsum(
                "pqo,pqi->poqi", self.local_up.to(dtype), self.local_down.to(dtype)
            )
            total += blocks.reshape(total.shape)
        return total

    def decode_rotated(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The weight in the rotated domain, ``W_H`` [out, in]."""
        return self.residual(dtype) + self.low_rank(dtype)

    def decode(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The weight in its original domain, ``dtype`` [out, in], so that ``y = x weightᵀ``."""
        weight = self.rotation.invert(self.decode_rotated(dtype), self.signs).to(dtype)
        return weight if self.smoothing is None else weight / self.smoothing.to(dtype)

    def tensors(self) -> dict[str, Tensor]:
        """The layer's own tensors under the pack's names; the signs are shared and not here."""
        parts = {
            "codes": self.codes,
            "scale": self.scale,
            "global_up": self.global_up,
            "global_down": self.global_down,
            "local_up": self.local_up,
            "local_down": self.local_down,
            "bias": self.bias,
            "smoothing": self.smoothing,
        }
        return {f"{self.name}.{part}": t for part, t in parts.items() if t is not None}

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
            KeyError: codes or scale are missing.
            ValueError: as the class.
        """
        return cls(
            name=name,
            out_features=record.out_features,
            in_features=record.in_features,
            weight_bits=record.weight_bits,
            codes=tensors[f"{name}.codes"],
            scale=tensors[f"{name}.scale"],
            rotation=rotation,
            global_up=tensors.get(f"{name}.global_up"),
            global_down=tensors.get(f"{name}.global_down"),
            local_up=tensors.get(f"{name}.local_up"),
            local_down=tensors.get(f"{name}.local_down"),
            bias=tensors.get(f"{name}.bias"),
            signs=signs,
            smoothing=tensors.get(f"{name}.smoothing"),
        )


def expected_tensors(
    name: str, record: LayerRecord, *, has_bias: bool = True
) -> dict[str, TensorSpec]:
    """Names, dtypes and shapes of a quantized layer's tensors, in exact integers.

    Raises:
        ValueError: the layer is kept in 16 bits and so has no codes.
    """
    out_features, in_features = record.out_features, record.in_features
    code_bytes = packed_bytes(record.weight_bits, out_features, in_features)
    parts = {"codes": TensorSpec("U8", (code_bytes,)), "scale": TensorSpec("F32", (out_features,))}
    if record.global_rank:
        parts["global_up"] = TensorSpec("BF16", (out_features, record.global_rank))
        parts["global_down"] = TensorSpec("BF16", (record.global_rank, in_features))
    if record.local_block is not None:
        rows, columns = record.local_block
        grid = (out_features // rows, in_features // columns)
        parts["local_up"] = TensorSpec("BF16", (*grid, rows))
        parts["local_down"] = TensorSpec("BF16", (*grid, columns))
    if has_bias:
        parts["bias"] = TensorSpec("BF16", (out_features,))
    if record.smoothing:
        parts["smoothing"] = TensorSpec("F32", (in_features,))
    return {f"{name}.{part}": spec for part, spec in parts.items()}
