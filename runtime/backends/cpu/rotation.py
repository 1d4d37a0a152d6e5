"""Smoothing, signs and rotation of a layer's input on the CPU, in few passes over it.

Sizes up to 64 are rotated by one dense product that takes smoothing and signs along. Larger ones
use the rotation's Kronecker factors, cut to the sizes that CPU kernels like: products of many small
matrices from the left, one tall product from the right; 48 x 32 for 1536, 12 x 16 x 32 for 6144.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from artifacts.codec.hadamard import Rotation, paley_matrix, sylvester_matrix
from artifacts.files.safetensors_io import tensor_bytes

_LARGEST_DENSE = 64
_LARGEST_FIRST, _LARGEST_MIDDLE, _LARGEST_LAST = 48, 16, 32
"""Orders of factors: the last one acts from the right, the others from the left."""
_PALEY_ORDERS = {"paley12": 12, "paley20": 20}


class CpuRotation:
    """``z = (x / smoothing * signs) H`` in float32.

    Use `for_layer`: layers that treat their inputs alike share one object.
    """

    def __init__(self, rotation: Rotation, signs: Tensor | None, smoothing: Tensor | None) -> None:
        self._rotation = rotation
        gain = torch.ones(rotation.size) if smoothing is None else 1 / smoothing.float()
        if signs is not None:
            gain = gain * signs
        self._gain: Tensor | None = None if signs is None and smoothing is None else gain
        self._dense: Tensor | None = None
        self._factors: list[Tensor] = []
        if rotation.is_identity:
            return
        if rotation.size <= _LARGEST_DENSE:
            self._dense = gain[:, None] * rotation.dense().float()
        else:
            self._factors = _kronecker_factors(rotation)

    @staticmethod
    def for_layer(
        rotation: Rotation, signs: Tensor | None, smoothing: Tensor | None
    ) -> "CpuRotation":
        """The rotation of a layer's record; the same object for the same contents."""
        return _shared(rotation, _content(signs), _content(smoothing))

    def __call__(self, x: Tensor, room: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Rotate tokens.

        Args:
            x: [tokens, size], any floating-point dtype.
            room: two float32 vectors of ``tokens * size`` numbers to work in; new ones by default.

        Returns:
            float32 [tokens, size], in one of the two; the caller may overwrite it.
        """
        room = room or (torch.empty(x.numel()), torch.empty(x.numel()))
        z, free = (part.view(x.shape) for part in room)
        z.copy_(x)
        if self._dense is not None:
            return torch.mm(z, self._dense, out=free)
        if self._gain is not None:
            z.mul_(self._gain)
        right = self._rotation.block_size  # entries that the factors still to come act on
        for factor in self._factors:
            right //= len(factor)
            if right == 1:
                torch.mm(z.view(-1, len(factor)), factor, out=free.view(-1, len(factor)))
            else:
                blocks = (-1, len(factor), right)
                torch.matmul(factor.T, z.view(blocks), out=free.view(blocks))
            z, free = free, z
        return z

    def fold_into(self, rows: Tensor) -> Tensor:
        """Rows [r, size] of the rotated domain -> float32 rows that act alike on plain inputs.

        ``rows`` times ``z`` equals the result times ``x``.
        """
        plain = self._rotation.invert(rows.double())
        return (plain if self._gain is None else plain * self._gain).float()


def _kronecker_factors(rotation: Rotation) -> list[Tensor]:
    """Orthonormal float32 matrices whose Kronecker product is one block of the rotation."""
    paley_order = _PALEY_ORDERS.get(rotation.construction, 1)
    rest = rotation.block_size // paley_order  # a power of two
    last = min(rest, _LARGEST_LAST)
    rest //= last
    middles = []
    while rest * paley_order > _LARGEST_FIRST and rest > 1:
        order = min(rest, _LARGEST_MIDDLE)
        middles.append(order)
        rest //= order
    first = torch.kron(paley_matrix(paley_order), sylvester_matrix(rest))
    matrices = [first, *map(sylvester_matrix, middles), sylvester_matrix(last)]
    return [(m / math.sqrt(len(m))).float() for m in matrices if len(m) > 1]


def _content(vector: Tensor | None) -> bytes | None:
    return None if vector is None else bytes(tensor_bytes(vector.float()))


@lru_cache(maxsize=64)
def _shared(rotation: Rotation, signs: bytes | None, smoothing: bytes | None) -> CpuRotation:
    def vector(content: bytes | None) -> Tensor | None:
        if content is None:
            return None
        return torch.frombuffer(bytearray(content), dtype=torch.float32)

    with torch.inference_mode(False):
        return CpuRotation(rotation, vector(signs), vector(smoothing))
