"""Block shapes of SVD-L: what the budget pays for, what is worth trying, what to expect (Eq. 7-9).

A weight [out, in] cut into blocks [s_o, s_i] costs ``(out/s_o)(in/s_i)(s_o + s_i + 1)`` numbers:
two singular vectors and a singular value for each block. A pack in bfloat16 folds the value into
one of the vectors, so what it stores is a little less than what the budget counts. In 8 bits it
stores the value, in the room of four numbers.
"""

from functools import lru_cache

from schemas.bit_widths import UNQUANTIZED


def local_budget(out_features: int, in_features: int, local_rank: int) -> int:
    """Numbers that SVD-L may take: as many as a global branch of rank r_L (Eq. 7)."""
    return local_rank * (out_features + in_features)


@lru_cache(maxsize=64)
def block_shapes(
    out_features: int, in_features: int, local_rank: int, factor_bits: int = UNQUANTIZED
) -> tuple[tuple[int, int], ...]:
    """Block shapes (s_o, s_i) worth trying for SVD-L within its budget.

    Cutting blocks finer never captures less energy (a block's rank-1 approximation, restricted to
    its parts, is a candidate for each of them), so a shape that another affordable shape subdivides
    is left out (ours; the paper gives one shape per layer).

    Args:
        out_features: rows of the weight.
        in_features: its columns.
        local_rank: r_L.
        factor_bits: of a number, 16 or 8.

    Returns:
        Shapes with the fewest blocks first, so that the first best one wins a tie.
    """
    allowed = local_budget(out_features, in_features, local_rank)
    value = 1 if factor_bits == UNQUANTIZED else 4
    affordable = {
        (rows, columns)
        for rows in _divisors(out_features)
        for columns in _divisors(in_features)
        if (out_features // rows) * (in_features // columns) * (rows + columns + value) <= allowed
    }
    finest = [
        (rows, columns)
        for rows, columns in affordable
        if not any(
            (r, c) != (rows, columns) and rows % r == 0 and columns % c == 0 for r, c in affordable
        )
    ]
    return tuple(
        sorted(
            finest,
            key=lambda shape: ((out_features // shape[0]) * (in_features // shape[1]), shape),
        )
    )


@lru_cache(maxsize=64)
def expected_block(
    out_features: int, in_features: int, local_rank: int, factor_bits: int = UNQUANTIZED
) -> tuple[int, int] | None:
    """The shape (s_o, s_i) that captures most energy of a weight without structure.

    Of the shapes worth trying, this is the first with the largest `expected_share`; None where none
    is affordable.
    """
    shapes = block_shapes(out_features, in_features, local_rank, factor_bits)
    return max(shapes, key=expected_share, default=None)


def expected_share(shape: tuple[int, int]) -> float:
    """The share of the energy of independent normal numbers that blocks (s_o, s_i) capture.

    The largest singular value of such a block tends to ``sqrt(s_o) + sqrt(s_i)``, so this is
    ``(1/sqrt(s_o) + 1/sqrt(s_i))^2``.
    """
    rows, columns = shape
    return (rows**-0.5 + columns**-0.5) ** 2


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]
