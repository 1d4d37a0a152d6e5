"""H-SVD: split a rotated weight into global and local low-rank factors and a residual (Sec. 3.2).

    W_H = SVD-G + SVD-L + residual

SVD-G is the best rank-r approximation of the whole weight. What is left is cut into blocks, and
SVD-L keeps each block's top singular triple (Eq. 5, 6). Both branches are stored in bfloat16, or in
8 bits, so each is rounded before it is subtracted: the next stage repairs the rounding.

Tensors in, tensors out; nothing here knows of files or layers.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from artifacts.codec.block_shapes import block_shapes
from artifacts.codec.factor_pair import (
    FactorPair,
    global_product,
    local_product,
    store_factors,
)
from schemas.bit_widths import UNQUANTIZED

# Chosen so that a matrix of random numbers, whose flat spectrum is the worst case, loses at most
# 0.1 % of the energy that exact factors capture (tests hold this). Measured on a 1536 x 1536 one at
# the default ranks: 0.011 % for the global factors, 0.012 % for the local ones of any shape.
GLOBAL_SPARE, GLOBAL_DEPTH = 8, 10
LOCAL_LOOK = (3, 16)
LOCAL_GLANCE = (1, 6)
"""Width and depth for comparing block shapes: all are underestimated alike, by 2 to 4 %."""


@dataclass(frozen=True)
class Effort:
    """How hard to look for singular vectors.

    Attributes:
        width: vectors multiplied at a time, at least the rank asked for.
        depth: products with ``A Aᵀ``, counting the start.
        seed: of the random start.
    """

    width: int
    depth: int
    seed: int


@dataclass(frozen=True)
class HierarchicalFactors:
    """The factor branches of one weight [out, in] and what they leave.

    Attributes:
        global_factors: SVD-G as stored; None where r is 0.
        local_factors: SVD-L as stored; None where nothing was asked for or no block shape fits the
            budget.
        residual: weight minus both branches as stored, float32 [out, in].
        global_energy, local_energy: share of the weight's squared norm that each branch removes.
        note: what went otherwise than asked, or an empty text.
    """

    global_factors: FactorPair | None
    local_factors: FactorPair | None
    residual: Tensor
    global_energy: float
    local_energy: float
    note: str = ""

    def parts(self) -> dict[str, Tensor | None]:
        """The branches under the names of a layer's parts (`artifacts.codec.layer_parts`)."""
        found: dict[str, Tensor | None] = {}
        for kind, pair in (("global", self.global_factors), ("local", self.local_factors)):
            for side in FactorPair._fields:
                found[f"{kind}_{side}"] = None if pair is None else getattr(pair, side)
        return found


def decompose(
    weight: Tensor,
    *,
    global_rank: int,
    local_rank: int,
    factor_bits: int = UNQUANTIZED,
    seed: int = 0,
) -> HierarchicalFactors:
    """Split ``weight`` float32 [out, in].

    Args:
        weight: the rotated weight.
        global_rank: r_G; 0 for no global branch. At most min(out, in) is used.
        local_rank: r_L; the local branch may cost as much as rank r_L would; 0 for none.
        factor_bits: of the factors' numbers as stored, 16 or 8.
        seed: of the randomized decompositions.

    A decomposition that does not converge is tried again in float64; if that fails too, the layer
    goes without that branch and the note says so.
    """
    total = _energy(weight)
    residual, notes = weight, []
    global_factors = local_factors = None
    global_energy = local_energy = 0.0

    rank = min(global_rank, *weight.shape)
    if rank and total:
        global_factors = _converging(
            residual, lambda w: _global_factors(w, rank, factor_bits, seed)
        )
        if global_factors is None:
            notes.append("global factors left out: the decomposition did not converge")
        else:
            residual = residual - global_product(global_factors)
            global_energy = 1 - _energy(residual) / total

    out_features, in_features = weight.shape
    shapes = block_shapes(out_features, in_features, local_rank, factor_bits) if total else []
    if shapes:
        local_factors = _converging(
            residual, lambda w: _local_factors(w, shapes, factor_bits, seed)
        )
        if local_factors is None:
            notes.append("local factors left out: the decomposition did not converge")
        else:
            residual = residual - local_product(local_factors)
            local_energy = 1 - global_energy - _energy(residual) / total
    return HierarchicalFactors(
        global_factors,
        local_factors,
        residual,
        max(global_energy, 0.0),
        max(local_energy, 0.0),
        "; ".join(notes),
    )


def top_factors(blocks: Tensor, rank: int, effort: Effort) -> tuple[Tensor, Tensor]:
    """Best rank-``rank`` factors of every matrix of ``blocks`` [n, rows, columns].

    A randomized block Krylov method (Musco and Musco, 2015): from a seeded random start, a basis of
    ``effort.depth`` products with ``A Aᵀ`` is built, and the best factors within it are taken
    (Rayleigh-Ritz). Where that basis would span the whole space anyway, it is the whole space and
    the result exact. Matrix products do nearly all the work, which is what makes this several times
    faster than a full decomposition.

    Returns:
        ``up`` [n, rows, rank] with the singular values folded in, and ``down`` [n, rank, columns]
        with rows of norm 1 (or 0, where the singular value is 0).
    """
    rows, columns = blocks.shape[-2:]
    if rows > columns:  # the basis lies on the smaller side
        down, up = top_factors(blocks.mT, rank, effort)
        norms = down.norm(dim=-2, keepdim=True)
        return up.mT * norms, _unit(down, norms).mT
    basis = _krylov_basis(blocks, effort)
    small = blocks if basis is None else basis.mT @ blocks
    _, vectors = torch.linalg.eigh(small @ small.mT)  # ascending eigenvalues
    left = vectors[..., -rank:].flip(-1)
    if basis is not None:
        left = basis @ left
    down = left.mT @ blocks  # rows are right singular vectors times their singular values
    norms = down.norm(dim=-1, keepdim=True)
    return left * norms.mT, _unit(down, norms)


def _krylov_basis(blocks: Tensor, effort: Effort) -> Tensor | None:
    """Orthonormal columns [n, rows, width * depth]; None where they would fill the space."""
    rows, columns = blocks.shape[-2:]
    if effort.width * effort.depth >= rows:
        return None
    generator = torch.Generator().manual_seed(effort.seed)
    # One start for all blocks: they are independent anyway, and the result depends on nothing else.
    start = torch.randn(columns, effort.width, generator=generator).to(blocks)
    parts = [torch.linalg.qr(blocks @ start).Q]
    for _ in range(effort.depth - 1):
        parts.append(torch.linalg.qr(blocks @ (blocks.mT @ parts[-1])).Q)
    return torch.linalg.qr(torch.cat(parts, dim=-1)).Q


def _unit(vectors: Tensor, norms: Tensor) -> Tensor:
    return vectors / norms.clamp_min(torch.finfo(vectors.dtype).tiny)


def _global_factors(weight: Tensor, rank: int, bits: int, seed: int) -> FactorPair:
    up, down = top_factors(weight[None], rank, Effort(rank + GLOBAL_SPARE, GLOBAL_DEPTH, seed))
    stored = store_factors(up[0].mT, down[0], bits)
    return stored._replace(up=stored.up.mT.contiguous())


def _local_factors(
    weight: Tensor, shapes: list[tuple[int, int]], bits: int, seed: int
) -> FactorPair:
    """Factors of the block shape that captures most energy."""
    glance, look = Effort(*LOCAL_GLANCE, seed), Effort(*LOCAL_LOOK, seed)

    def energy(shape: tuple[int, int]) -> float:
        up, _ = top_factors(_blocks(weight, *shape), 1, glance)
        return _energy(up)

    rows, columns = max(shapes, key=energy) if len(shapes) > 1 else shapes[0]
    up, down = top_factors(_blocks(weight, rows, columns), 1, look)
    grid = (weight.shape[0] // rows, weight.shape[1] // columns)
    return store_factors(up.reshape(*grid, rows), down.reshape(*grid, columns), bits)


def _blocks(weight: Tensor, rows: int, columns: int) -> Tensor:
    """[out, in] -> [P * Q, s_o, s_i], row of blocks by row of blocks."""
    cut = weight.unflatten(1, (-1, columns)).unflatten(0, (-1, rows))  # [P, s_o, Q, s_i]
    return cut.transpose(1, 2).flatten(0, 1)


def _converging(weight: Tensor, factorise: Callable[[Tensor], FactorPair]) -> FactorPair | None:
    """Factorise in float32, else in float64, else not at all."""
    for dtype in (torch.float32, torch.float64):
        # The class is public, but not in torch's own list of exported names.
        with contextlib.suppress(torch.linalg.LinAlgError):  # type: ignore[attr-defined]
            return factorise(weight.to(dtype))
    return None


def _energy(values: Tensor) -> float:
    """Squared norm, summed in float64: squares of tiny float32 numbers would vanish."""
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2
