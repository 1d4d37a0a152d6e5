"""Exact products of activation codes and weight codes by oneDNN's 8-bit integer kernels.

Codes of activations are unsigned already, 0 ... 2^a - 1. Weight codes c, 0 ... 2^b - 1, are brought
to signed bytes s: the odd integers ``2c - (2^b - 1)`` where these fit (b < 8), ``c - 128`` for
b = 8. Both operands stand for half-integer levels, so what a layer needs is the product of the
doubled levels; with ``A = 2^a - 1`` and K inputs it is

    sum (2 c_a - A) (2 c_w - W) = 2 acc - A sum s                              b < 8
                                = 4 acc - 2 A sum s + (2 sum c_a - A K)        b = 8

where ``acc = sum c_a s`` is what the kernel computes, in 32-bit integers: unsigned times signed
bytes, at most 255 * 128 * K, which fits for K up to 65,000. ``sum s`` is a constant of the output
channel, ``2 sum c_a - A K`` one number per token.

Processors without the instructions made for this (VNNI, AMX) add pairs of products in 16 bits,
which saturates: the sums are silently wrong. `inexact_reason` finds out by computing the worst
case.
"""

from functools import lru_cache

import torch
from torch import Tensor

_MAX_INPUTS = (2**31 - 1) // (255 * 128)
"""Most inputs whose sum of products fits 32 bits."""


class Int8Weight:
    """Weight codes [out, in], rearranged once for the processor's integer kernels.

    Args:
        codes: uint8 [out_features, in_features].
        weight_bits: bits of a code, 1 ... 8.
        scale: step of every output channel, float32 [out_features].

    Attributes:
        needs_token_sums: whether results lack the term of `token_terms` (8-bit weights).

    Raises:
        ValueError: more inputs than 32-bit sums hold.
    """

    def __init__(self, codes: Tensor, weight_bits: int, scale: Tensor) -> None:
        if codes.shape[1] > _MAX_INPUTS:
            raise ValueError(f"{codes.shape[1]} inputs: 32-bit sums hold {_MAX_INPUTS}")
        self.in_features = codes.shape[1]
        self.needs_token_sums = weight_bits == 8
        self._gain = 4 if self.needs_token_sums else 2
        wide = codes.to(torch.int16)
        signed = (wide - 128 if self.needs_token_sums else 2 * wide - (2**weight_bits - 1)).char()
        self._packed = torch.ops.onednn.qlinear_prepack(signed, None)
        self._sums = signed.sum(1, dtype=torch.int32).double()
        self._scale = scale.double()
        self._step = (self._scale * (self._gain / 4)).float()
        self._zero_points = torch.zeros(len(codes), dtype=torch.int32)
        self._offsets: dict[int, Tensor] = {}

    def product(self, codes: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
        """Levels times decoded weight: ``dtype`` [tokens, out_features].

        Args:
            codes: activation codes uint8 [tokens, in_features], contiguous, at least one token.
            bits: of the codes, 1 ... 8.
            dtype: float32 or bfloat16.

        Returns:
            ``sum (c_a - A/2) (c_w - W/2) scale``, without the term of `token_terms`.
        """
        return torch.ops.onednn.qlinear_pointwise(
            *(codes, 1.0, 0, self._packed, self._step, self._zero_points),
            *(self._offset(bits), 1.0, 0, dtype, "none", [], ""),
        )

    def token_terms(self, codes: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """What `product` leaves out, as an outer product: float32 [tokens, 1] and [1, out].

        Only 8-bit weights need it.
        """
        sums = codes.sum(1, keepdim=True, dtype=torch.int32)
        centred = 2 * sums - (2**bits - 1) * self.in_features
        return centred.float(), (self._scale / 4).float()[None]

    def doubled_product(self, codes: Tensor, bits: int) -> Tensor:
        """The product of doubled levels, float64 [tokens, out_features].

        Exact while ``acc`` stays below 2^24, because the kernel hands it out in float32.
        """
        ones = torch.ones_like(self._step)
        acc = torch.ops.onednn.qlinear_pointwise(
            *(codes, 1.0, 0, self._packed, ones, self._zero_points),
            *(None, 1.0, 0, torch.float32, "none", [], ""),
        )
        y = self._gain * acc.double() - (2**bits - 1) * (self._gain / 2) * self._sums
        return y + self.token_terms(codes, bits)[0].double() if self.needs_token_sums else y

    def odd_integers(self, dtype: torch.dtype) -> Tensor:
        """Twice the levels of the weight, ``dtype`` [out, in], unpacked again."""
        signed = self._packed.to_dense().T.to(dtype)  # oneDNN keeps it as [in, out]
        return signed.mul_(2).add_(1) if self.needs_token_sums else signed

    def _offset(self, bits: int) -> Tensor:
        """The constant of every output channel at ``bits`` activation bits, float32 [out]."""
        if bits not in self._offsets:
            factor = (2**bits - 1) * self._gain / 8
            self._offsets[bits] = (self._sums * self._scale * -factor).float()
        return self._offsets[bits]


@lru_cache(maxsize=1)
def inexact_reason() -> str | None:
    """Why this machine's kernels cannot be used, or None when they give exact sums."""
    inputs = 256
    signed = torch.tensor([127, -128], dtype=torch.int8).repeat_interleave(16)
    weight = signed[:, None].expand(-1, inputs).contiguous()  # saturates every 16-bit sum
    try:
        with torch.inference_mode(False):
            packed = torch.ops.onednn.qlinear_prepack(weight, None)
            for tokens in (1, 33):  # one token takes another kernel than many
                codes = torch.full((tokens, inputs), 255, dtype=torch.uint8)
                scale = torch.ones(len(weight))
                acc = torch.ops.onednn.qlinear_pointwise(
                    *(codes, 1.0, 0, packed, scale, torch.zeros(len(weight), dtype=torch.int32)),
                    *(None, 1.0, 0, torch.float32, "none", [], ""),
                )
                if not torch.equal(acc, (255.0 * inputs * signed).expand(tokens, -1)):
                    return "its integer kernels saturate (the processor has no VNNI)"
    except (AttributeError, RuntimeError, NotImplementedError, TypeError) as cause:
        return f"torch has no 8-bit oneDNN kernels here ({str(cause).partition(chr(10))[0]})"
    return None
