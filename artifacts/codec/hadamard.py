"""The rotation H that spreads outliers before quantization: orthonormal, fast, seeded signs.

Row-vector convention: ``z = (x * signs) H`` for activations and for the rows of weights alike, so
``x Wᵀ = z W_Hᵀ``. The published constructions, none of which is stored as numbers:

- Sylvester, order 2^k: ``S_1 = [1]``, ``S_2m = [[S_m, S_m], [S_m, -S_m]]``; symmetric.
- Paley I, order q + 1 for a prime q = 3 (mod 4), here 11 and 19: ``I + C`` with
  ``C = [[0, 1ᵀ], [-1, Q]]`` and ``Q[i, j] = chi(i - j)``, chi being the quadratic character mod q
  (1 for squares, -1 for the others, 0 for 0). C is skew-symmetric, so the matrix is not symmetric.

Orders 12 * 2^k and 20 * 2^k are ``Paley ⊗ Sylvester``: index = paley_index * 2^k +
sylvester_index. Any other size (ours) gets a block-diagonal Sylvester matrix whose order is the
largest power of two that divides it, or no rotation where that is below 16.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Construction = Literal["sylvester", "paley12", "paley20", "block", "none"]

_PALEY_ORDERS: dict[str, int] = {"paley12": 12, "paley20": 20}
_MIN_BLOCK = 16
"""Smaller blocks mix too few channels to spread an outlier."""
_MAX_FACTOR_ORDER = 64
"""Largest dense Sylvester factor: big enough for efficient products, small enough to stay fast."""


@dataclass(frozen=True)
class Rotation:
    """The rotation of vectors of one size.

    Attributes:
        size: length of the vectors.
        construction: which matrix stands in each block.
        block_size: order of one diagonal block: ``size``, except for ``block`` (a power of two
            that divides it) and ``none`` (1).

    Raises:
        ValueError: there is no such matrix of that size.
    """

    size: int
    construction: Construction
    block_size: int

    def __post_init__(self) -> None:
        if self.size < 1 or not self._exists():
            raise ValueError(
                f"no {self.construction} rotation of size {self.size} with blocks of"
                f" {self.block_size}"
            )

    def _exists(self) -> bool:
        if self.construction == "none":
            return self.block_size == 1
        if self.construction == "block":
            return _is_power_of_two(self.block_size) and self.size % self.block_size == 0
        sylvester_order, remainder = divmod(self.size, self._paley_order)
        return self.block_size == self.size and not remainder and _is_power_of_two(sylvester_order)

    @classmethod
    def for_size(cls, size: int) -> "Rotation":
        """The rotation that the method gives vectors of length ``size``."""
        if _is_power_of_two(size):
            return cls(size, "sylvester", size)
        if size % 12 == 0 and _is_power_of_two(size // 12):
            return cls(size, "paley12", size)
        if size % 20 == 0 and _is_power_of_two(size // 20):
            return cls(size, "paley20", size)
        block_size = size & -size  # the lowest set bit: the largest power of two that divides it
        if block_size >= _MIN_BLOCK:
            return cls(size, "block", block_size)
        return cls.identity(size)

    @classmethod
    def identity(cls, size: int) -> "Rotation":
        """No rotation."""
        return cls(size, "none", 1)

    @property
    def is_identity(self) -> bool:
        """Whether this leaves vectors as they are."""
        return self.construction == "none"

    @property
    def _paley_order(self) -> int:
        return _PALEY_ORDERS.get(self.construction, 1)

    def apply(self, x: Tensor, signs: Tensor | None = None) -> Tensor:
        """``(x * signs) H`` for ``x`` [..., size] and ``signs`` [size] of +1 and -1.

        Computed and returned in float32, or in float64 for float64 input.

        Raises:
            ValueError: the last dimension is not ``size``.
        """
        x = self._checked(x)
        return self._transform(x if signs is None else x * signs.to(x), transposed=False)

    def invert(self, z: Tensor, signs: Tensor | None = None) -> Tensor:
        """``(z Hᵀ) * signs`` for ``z`` [..., size]: undoes `apply`. Same dtypes and errors."""
        x = self._transform(self._checked(z), transposed=True)
        return x if signs is None else x * signs.to(x)

    def dense(self) -> Tensor:
        """H as a float64 matrix [size, size], built by the textbook definition (slow)."""
        if self.is_identity:
            return torch.eye(self.size, dtype=torch.float64)
        sylvester = sylvester_matrix(self.block_size // self._paley_order)
        block = torch.kron(paley_matrix(self._paley_order), sylvester) / math.sqrt(self.block_size)
        # A block-diagonal matrix of equal blocks is the Kronecker product with the identity.
        return torch.kron(torch.eye(self.size // self.block_size, dtype=torch.float64), block)

    def _checked(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.size:
            raise ValueError(f"vectors of {x.shape[-1]} for a rotation of size {self.size}")
        return x if x.dtype == torch.float64 else x.float()

    def _transform(self, x: Tensor, *, transposed: bool) -> Tensor:
        """``x H``, or ``x Hᵀ`` when ``transposed``: one small product per Kronecker factor.

        With ``H = A ⊗ B ⊗ ...`` the index splits into one digit per factor, and a factor acts on
        its own digit alone: n * (sum of the factors' orders) multiplications instead of n * n.
        """
        if self.is_identity:
            return x
        shape = x.shape
        right = self.block_size  # vectors' entries that the factors still to come act on
        for matrix in _factors(self.block_size, self._paley_order, x.dtype, x.device):
            right //= len(matrix)
            digits = x.reshape(-1, len(matrix), right)
            if right == 1:
                x = digits.squeeze(-1) @ (matrix.T if transposed else matrix)
            else:
                x = (matrix if transposed else matrix.T) @ digits
        return x.reshape(shape)


def _is_power_of_two(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0


def _factor_orders(order: int) -> list[int]:
    """Split a power of two into few, nearly equal powers of two of at most 64."""
    exponent = order.bit_length() - 1
    if exponent == 0:
        return []
    count = -(-exponent // (_MAX_FACTOR_ORDER.bit_length() - 1))
    base, larger = divmod(exponent, count)
    return [2 ** (base + (index < larger)) for index in range(count)]


def _split(order: int, paley_order: int) -> tuple[int, list[int]]:
    """How the rotation of one block is cut into Kronecker factors of at most 64.

    Returns:
        Order of the Sylvester matrix that the Paley factor is multiplied with beforehand, and of
        the Sylvester factors that follow. 1536 = 12 * 128 is (12 * 4) * 32 instead of 12 * 16 * 8:
        the product is the same matrix, in two steps instead of three.
    """
    sylvester = order // paley_order
    orders = _factor_orders(sylvester)
    joined = 1
    while paley_order > 1 and 2 * joined * paley_order <= _MAX_FACTOR_ORDER:
        joined *= 2
        shorter = _factor_orders(max(1, sylvester // joined))
        if sylvester >= joined and len(shorter) < len(orders):
            return joined, shorter
    return 1, orders


@lru_cache(maxsize=64)
def _factors(
    order: int, paley_order: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, ...]:
    """The Kronecker factors of the rotation of one block, orthonormal. Do not write into them."""
    with torch.inference_mode(False):  # what is kept must serve later callers of any mode
        joined, orders = _split(order, paley_order)
        factors = [sylvester_matrix(part) for part in orders]
        if paley_order > 1:
            factors.insert(0, torch.kron(paley_matrix(paley_order), sylvester_matrix(joined)))
        # The order of a factor stands for its norm: dividing each keeps numbers in range.
        return tuple((factor / math.sqrt(len(factor))).to(device, dtype) for factor in factors)


@lru_cache(maxsize=32)
def sylvester_matrix(order: int) -> Tensor:
    """The Sylvester matrix, entries +1 and -1, float64 [order, order]; ``order`` is 2^k.

    Shared between callers: do not write into it.
    """
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < order:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


@lru_cache(maxsize=4)
def paley_matrix(order: int) -> Tensor:
    """The Paley I matrix, entries +1 and -1, float64 [order, order]; order 1 is [1].

    ``order - 1`` must be a prime that leaves 3 when divided by 4. Shared: do not write into it.
    """
    if order == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    q = order - 1
    squares = {i * i % q for i in range(1, q)}
    character = [0.0] + [1.0 if i in squares else -1.0 for i in range(1, q)]
    matrix = torch.ones(order, order, dtype=torch.float64)
    matrix[1:, 0] = -1
    matrix[1:, 1:] = torch.tensor([[character[(i - j) % q] for j in range(q)] for i in range(q)])
    matrix.diagonal().fill_(1)
    return matrix


def random_signs(size: int, seed: int) -> Tensor:
    """``size`` random signs, float32 [size] of +1 and -1; the same on every platform.

    The raw stream of PCG64 is read, because numpy keeps that stable from version to version and
    does not promise the same for its distributions.

    Raises:
        ValueError: ``seed`` is negative.
    """
    generator = np.random.PCG64(np.random.SeedSequence([seed, size]))
    words = np.atleast_1d(generator.random_raw(-(-size // 64))).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8), bitorder="little", count=size)
    return _signs_of(bits)


def pack_signs(signs: Tensor) -> Tensor:
    """Signs [size] of +1 and -1 -> uint8 [ceil(size / 8)], a set bit for -1, low end first.

    Raises:
        ValueError: some entry is neither.
    """
    values = signs.detach().cpu()
    if values.dim() != 1 or not bool((values.abs() == 1).all()):
        raise ValueError("signs must be a vector of +1 and -1")
    return torch.from_numpy(np.packbits((values < 0).numpy(), bitorder="little"))


def unpack_signs(packed: Tensor, size: int) -> Tensor:
    """Undo `pack_signs`: uint8 [ceil(size / 8)] -> float32 [size].

    Raises:
        ValueError: wrong dtype or size, or a set bit beyond the last sign.
    """
    if packed.dtype != torch.uint8 or packed.shape != (-(-size // 8),):
        raise ValueError(
            f"signs of size {size} must be uint8 [{-(-size // 8)}], not {packed.dtype}"
            f" {tuple(packed.shape)}"
        )
    bits = np.unpackbits(packed.cpu().numpy(), bitorder="little")
    if bits[size:].any():
        raise ValueError(f"signs of size {size} have a set bit beyond the last one")
    return _signs_of(bits[:size])


def _signs_of(bits: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> Tensor:
    return 1 - 2 * torch.from_numpy(bits.astype(np.float32))
