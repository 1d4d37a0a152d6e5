"""Leading singular vectors by Krylov methods: of one large matrix, and of many small blocks.

Both build an orthonormal basis of the space of ``AᵀA`` applied again and again to a start, and
take the best vectors within it (Rayleigh-Ritz). A matrix is multiplied with a handful of vectors
at a time and never copied, so the time is that of reading it a few times.

- `leading_factors` is the randomized block Krylov method (Musco and Musco, 2015) as a block Lanczos
  iteration that stops by itself (ours: when the gains it still expects are too small to matter).
- `leading_triples` is the Lanczos iteration with one vector per block, many blocks at once.

Results depend on the matrix, the seed and the number of threads of a matrix product, and on nothing
else. Tensors of any device.
"""

import torch
from torch import Tensor

WIDEST_BASIS = 20
"""Of `leading_factors`, in multiples of the rank: where spectra are so flat that a basis of this
width is not enough, another step would gain next to nothing."""
SMALL_SIDE, SMALL = 256, 8
"""Matrices with a side of at most the first, or of the second times the rank, are decomposed
exactly."""
DEPENDENT = 1e-4
"""A vector of which less than this is new is as good as rounding. It adds no more than the square
to a singular value."""


def leading_factors(
    matrix: Tensor, rank: int, *, energy: float, tolerance: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Best rank-``rank`` factors of ``matrix`` [out, in].

    Args:
        matrix: float, with squares that its dtype holds.
        rank: 1 ... min(out, in).
        energy: the squared norm of ``matrix``.
        tolerance: stop when the energy still to be gained is expected to be less than this share
            of the energy that is not captured.
        seed: of the random start.

    Returns:
        ``up`` [out, rank] with the singular values folded in, and ``down`` [rank, in] with
        orthonormal rows (zeros where ``matrix`` has a lower rank than that).
    """
    if matrix.shape[0] < matrix.shape[1]:  # the basis lies on the smaller side
        down, up = leading_factors(matrix.mT, rank, energy=energy, tolerance=tolerance, seed=seed)
        norms = down.norm(dim=0)
        return up.mT * norms, (down / norms.clamp_min(torch.finfo(matrix.dtype).tiny)).mT
    if matrix.shape[1] <= max(SMALL_SIDE, SMALL * rank):
        vectors = torch.linalg.eigh(matrix.mT @ matrix)[1]  # ascending eigenvalues
        right = vectors[:, -rank:].flip(-1)
        return matrix @ right, right.mT
    return _krylov_factors(matrix, rank, energy, tolerance, seed)


def _krylov_factors(
    matrix: Tensor, rank: int, energy: float, tolerance: float, seed: int
) -> tuple[Tensor, Tensor]:
    """`leading_factors` of a tall ``matrix`` [out, in]."""
    out_features, in_features = matrix.shape
    generator = torch.Generator().manual_seed(seed)
    width = min(WIDEST_BASIS * rank, in_features) // rank * rank
    basis = matrix.new_empty(in_features, width)
    projected = matrix.new_zeros(width, width)  # basisᵀ AᵀA basis
    images: list[Tensor] = []  # A basis
    captured: list[float] = []

    # The start: every vector a random combination of its own share of the rows, so that all of
    # them together cost one pass.
    share = out_features // rank
    weights = torch.randn(rank, 1, share, generator=generator).to(matrix)
    products = (weights @ matrix[: rank * share].unflatten(0, (rank, share)))[:, 0].mT
    for begin in range(0, width, rank):
        new = _orthonormal(products, basis[:, :begin])
        if new is None:  # nothing is left to be found
            break
        end = begin + rank
        basis[:, begin:end] = new
        images.append(matrix @ new)
        # Rows times the matrix: faster than the transposed matrix times columns.
        products = (images[-1].mT @ matrix).mT
        overlap = basis[:, :end].mT @ products
        projected[:end, begin:end] = overlap
        projected[begin:end, :end] = overlap.mT
        values = torch.linalg.eigvalsh(projected[:end, :end])
        captured.append(float(values[-rank:].sum(dtype=torch.float64)))
        if _expected_gain(captured) <= tolerance * (energy - captured[-1]):
            break
    size = len(images) * rank
    _, vectors = torch.linalg.eigh(projected[:size, :size])
    best = vectors[:, -rank:].flip(-1)
    return torch.cat(images, 1) @ best, (basis[:, :size] @ best).mT


def _orthonormal(vectors: Tensor, known: Tensor) -> Tensor | None:
    """Orthonormal columns that span what ``vectors`` [n, k] add to the orthonormal ``known``.

    None where they add nothing. Where some add nothing, any other directions stand for them.
    """
    found = vectors - known @ (known.mT @ vectors)
    if known.numel() and float(found.norm()) <= DEPENDENT * float(vectors.norm()):
        return None
    # Again: what was taken away left rounding errors, and some columns may be nothing but them.
    for _ in range(3):
        found = torch.linalg.qr(found).Q
        overlap = known.mT @ found
        found = found - known @ overlap
        if not overlap.numel() or float(overlap.abs().max()) < DEPENDENT:
            break
    return found


def _expected_gain(captured: list[float]) -> float:
    """What more steps would add, if gains go on shrinking by the last two's ratio."""
    if len(captured) < 3:
        return float("inf")
    before, last = captured[-2] - captured[-3], captured[-1] - captured[-2]
    if last <= 0:  # nothing but rounding
        return 0.0
    return last * last / (before - last) if last < before else float("inf")


def leading_triples(blocks: Tensor, steps: int, start: Tensor) -> tuple[Tensor, Tensor]:
    """Leading singular triple of every matrix of ``blocks`` [P, Q, rows, columns].

    Args:
        blocks: float, a view of any strides, with fourth powers that its dtype holds.
        steps: of the Lanczos iteration, at least 1; as many as the smaller side has are exact.
        start: random, [rows]; the same for all, because blocks are independent anyway.

    Returns:
        ``up`` [P, Q, rows] with the singular values folded in, and ``down`` [P, Q, columns] of norm
        1, or 0 where a block is.
    """
    grid, (rows, columns) = blocks.shape[:2], blocks.shape[2:]
    count, steps = grid.numel(), min(steps, rows, columns)
    tiny = torch.finfo(blocks.dtype).tiny
    basis = blocks.new_zeros(count, steps, columns)
    images = blocks.new_zeros(count, steps, rows)  # A basis
    projected = blocks.new_zeros(count, steps, steps)  # basisᵀ AᵀA basis
    products = torch.cat([start.expand(len(row), 1, rows) @ row for row in blocks])
    for step in range(steps):
        known = basis[:, :step]
        size = products.norm(dim=-1, keepdim=True)
        for _ in range(2):  # a first pass leaves rounding errors
            products = torch.baddbmm(products, products @ known.mT, known, alpha=-1)
        left = products.norm(dim=-1, keepdim=True)
        new = torch.where(left > DEPENDENT * size, products / left.clamp_min(tiny), 0.0)
        basis[:, step] = new[:, 0]
        images[:, step], products = _there_and_back(new, blocks)
        overlap = (products @ basis[:, : step + 1].mT)[:, 0]
        projected[:, step, : step + 1] = overlap
        projected[:, : step + 1, step] = overlap
    _, vectors = torch.linalg.eigh(projected)
    best = vectors[:, None, :, -1]
    down = best @ basis
    norms = down.norm(dim=-1, keepdim=True).clamp_min(tiny)
    up = best @ images / norms
    return up.view(*grid, rows), (down / norms).view(*grid, columns)


def _there_and_back(vectors: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor]:
    """``A v`` [n, rows] and ``AᵀA v`` [n, 1, columns] of every block; ``vectors`` [n, 1, columns].

    A row of blocks after the other, so that its second product finds it in the processor's cache. A
    row times a matrix, never a matrix times a column: that product is several times slower.
    """
    images, products = [], []
    for row, known in zip(blocks, vectors.unflatten(0, blocks.shape[:2]), strict=True):
        images.append(known @ row.mT)
        products.append(images[-1] @ row)
    return torch.cat(images)[:, 0], torch.cat(products)
