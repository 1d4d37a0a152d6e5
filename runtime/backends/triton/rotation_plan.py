"""The rotation as the preparing kernel computes it: one product from the left, one from the right.

A token x of size n is laid out as a matrix X [L, R] (index = l R + r). Every rotation of
`artifacts.codec.hadamard` is ``(A ⊗ S) / sqrt(order)`` with a Sylvester matrix S of order R and a
small matrix A of order L with entries +1, -1 and, for block-diagonal rotations, 0. So

    z = (Aᵀ X) S / sqrt(order)

What the first product leaves in a thread's registers is where the second one reads it. Usual
widths are 1536 = 12 * 128 and 6144 = 48 * 128. Kernels know tiles of powers of two only, at
least 16 wide, so both matrices are padded with zeros.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from artifacts.codec.hadamard import Rotation, paley_matrix, sylvester_matrix

_LARGEST_RIGHT = 128
"""Order of the Sylvester matrix: the widest that keeps both products small at such widths."""
_SMALLEST_TILE = 16
"""Tensor cores multiply tiles of at least this many rows and columns."""
LARGEST_ROW = 16384
"""Longest padded token that fits the registers of one program."""
_LEFT_ROWS = 64
"""Rows of the left product of a program's tokens: the fewest that Hopper's tensor cores multiply
at once."""


@dataclass(frozen=True, eq=False)
class RotationPlan:
    """What the preparing kernel needs to know about a layer's smoothing, signs and rotation.

    Attributes:
        size: length of a token, n.
        rows, columns: L and R; ``rows * columns`` is n, except without rotation, where it may be
            more.
        left: Aᵀ, padded, bfloat16 [padded L, padded L]; None without rotation.
        right: S, padded, bfloat16 [padded R, padded R]; None without rotation.
        gain: signs, float32 [n], or None for all +1.
        divisor: smoothing, float32 [n], or None.
        norm: 1 / sqrt(order).
    """

    size: int
    rows: int
    columns: int
    left: Tensor | None
    right: Tensor | None
    gain: Tensor | None
    divisor: Tensor | None
    norm: float

    @property
    def padded_rows(self) -> int:
        """L, rounded up to a power of two that tensor cores accept."""
        return padded(self.rows)

    @property
    def padded_columns(self) -> int:
        """R, likewise."""
        return padded(self.columns)

    def tokens_at_once(self, elements: int) -> int:
        """How many tokens one program holds that shall have about ``elements`` numbers."""
        tile = self.padded_rows * self.padded_columns
        # A matrix of the left factor for every token at once must stay small.
        return max(1, min(elements // tile, _LEFT_ROWS // self.padded_rows))


def padded(size: int) -> int:
    """The next power of two, at least 16."""
    return max(_SMALLEST_TILE, 1 << (size - 1).bit_length())


def split_orders(rotation: Rotation) -> tuple[int, int]:
    """L and R of a rotation."""
    if rotation.is_identity:
        columns = min(_LARGEST_RIGHT, padded(rotation.size))
        return -(-rotation.size // columns), columns
    power = rotation.block_size & -rotation.block_size  # 4 * 2^k for Paley's order 12 or 20
    paley = {"paley12": 12, "paley20": 20}.get(rotation.construction, 1)
    columns = min(_LARGEST_RIGHT, power if paley == 1 else rotation.block_size // paley)
    return rotation.size // columns, columns


def row_elements(rotation: Rotation) -> int:
    """Numbers in one padded token."""
    rows, columns = split_orders(rotation)
    return padded(rows) * padded(columns)


def factor_matrices(rotation: Rotation) -> tuple[Tensor, Tensor]:
    """A [L, L] and S [R, R] of a rotation that is none of the identity, float64, not padded."""
    rows, columns = split_orders(rotation)
    paley = {"paley12": 12, "paley20": 20}.get(rotation.construction, 1)
    inner = torch.kron(
        paley_matrix(paley), sylvester_matrix(rotation.block_size // (paley * columns))
    )
    blocks = torch.eye(rotation.size // rotation.block_size, dtype=torch.float64)
    left = torch.kron(blocks, inner)
    if len(left) != rows:
        raise ValueError(f"a left factor of order {len(left)}, not {rows}")
    return left, sylvester_matrix(columns)


def check_row(rotation: Rotation) -> None:
    """Refuse tokens that do not fit one program.

    Raises:
        ValueError: ``rotation`` is for longer ones.
    """
    if row_elements(rotation) > LARGEST_ROW:
        raise ValueError(f"tokens of {rotation.size} numbers do not fit one program")


def plan_for(
    rotation: Rotation, signs: Tensor | None, smoothing: Tensor | None, device: torch.device
) -> RotationPlan:
    """The plan of a layer on ``device``; the same object for the same contents."""
    return _shared(rotation, _content(signs), _content(smoothing), device)


def _content(vector: Tensor | None) -> Hashable:
    return None if vector is None else vector.detach().float().cpu().numpy().tobytes()


@lru_cache(maxsize=64)
def _shared(
    rotation: Rotation, signs: bytes | None, smoothing: bytes | None, device: torch.device
) -> RotationPlan:
    def vector(content: bytes | None) -> Tensor | None:
        if content is None:
            return None
        return torch.frombuffer(bytearray(content), dtype=torch.float32).to(device)

    def tile(matrix: Tensor) -> Tensor:
        side = padded(len(matrix))
        whole = torch.zeros(side, side, dtype=torch.bfloat16)
        whole[: len(matrix), : len(matrix)] = matrix  # entries +1, -1 and 0 are exact
        return whole.to(device)

    rows, columns = split_orders(rotation)
    left = right = None
    with torch.inference_mode(False):  # what is kept must serve later callers of any mode
        if not rotation.is_identity:
            factors = factor_matrices(rotation)
            left, right = tile(factors[0].T), tile(factors[1])
        return RotationPlan(
            size=rotation.size,
            rows=rows,
            columns=columns,
            left=left,
            right=right,
            gain=vector(signs),
            divisor=vector(smoothing),
            norm=rotation.block_size**-0.5,
        )
