"""H-SVD: split a rotated weight into global and local low-rank factors and a residual (Sec. 3.2).

    W_H = SVD-G + SVD-L + residual

SVD-G is the best rank-r approximation of the whole weight. What is left is cut into blocks, and
SVD-L keeps each block's top singular triple (Eq. 5, 6). Both branches are stored in bfloat16, or in
8 bits, so each is rounded before it is subtracted: the next stage repairs the rounding.

How near the factors come to exact ones is the effort's choice (`planner.weights.effort`). Random
numbers have the flattest spectrum and converge last. Of the energy that exact factors capture, this
much is missed on 1536 x 1536, 6144 x 1536 and 1536 x 6144 of them at ranks 32 and 8, and so much
larger is the layer's error at 4 bits (``python -m benchmarks.planner_speed --accuracy``):

    fast      global 10 %,         local 22 to 23 %,   0.03 to 0.06 dB
    normal    global 1.5 to 3.2 %, local 3.6 to 5.6 %, 0.011 to 0.013 dB
    thorough  global 0.02 %,       local 0.02 %,       less than 0.001 dB

With structure the global factors of normal effort miss less than a thousandth.

Tensors in, tensors out; nothing here knows of files or layers.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from artifacts.codec.block_shapes import block_shapes, expected_share
from artifacts.codec.factor_pair import FactorPair, store_factors
from planner.weights.block_choice import predicted_shape
from planner.weights.effort import EFFORTS, Effort
from planner.weights.leading import leading_factors, leading_triples
from planner.weights.row_energy import energy, row_energies
from schemas.bit_widths import UNQUANTIZED

CACHED_NUMBERS = 2**22
"""16 MiB of float32."""
FEWEST_STEPS, MOST_STEPS = 2, 24
"""Of the Lanczos iteration for local factors. After 24, less than a thousandth is missed."""
SAFE_EXPONENT = 20
"""Weights whose largest magnitude is beyond 2^±20 are scaled first: products of four numbers must
neither vanish nor overflow in float32."""


@dataclass(frozen=True)
class HierarchicalFactors:
    """The factor branches of one weight [out, in] and what they leave.

    Attributes:
        global_factors: SVD-G as stored; None where r is 0.
        local_factors: SVD-L as stored; None where nothing was asked for or no block shape fits the
            budget.
        residual: weight minus both branches as stored, float32 [out, in].
        energy: the weight's squared norm.
        global_energy, local_energy: share of the weight's squared norm that each branch removes.
        note: what went otherwise than asked, or an empty text.
    """

    global_factors: FactorPair | None
    local_factors: FactorPair | None
    residual: Tensor
    energy: float
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
    effort: Effort = EFFORTS["normal"],
    overwrite: bool = False,
) -> HierarchicalFactors:
    """Split ``weight`` float32 [out, in].

    Args:
        weight: the rotated weight.
        global_rank: r_G; 0 for no global branch. At most min(out, in) is used.
        local_rank: r_L; the local branch may cost as much as rank r_L would; 0 for none.
        factor_bits: of the factors' numbers as stored, 16 or 8.
        seed: of the randomized decompositions.
        effort: how hard to look for the best factors.
        overwrite: make the residual in the memory of ``weight``, which saves a copy.

    A decomposition that does not converge is tried again in float64; if that fails too, the layer
    goes without that branch and the note says so.
    """
    residual = weight if overwrite else weight.clone()
    rows = row_energies(residual)
    source_energy = total = float(rows.sum())
    notes = []
    global_factors = local_factors = None
    global_energy = local_energy = 0.0
    exponent = _unusual_exponent(residual) if total else 0
    if exponent:  # a power of two, so nothing is rounded
        rows = row_energies(residual.mul_(2.0**-exponent))
        total = float(rows.sum())

    rank = min(global_rank, *weight.shape)
    if rank and total:
        global_factors = _converging(
            residual, lambda w: _global_factors(w, rank, total, factor_bits, effort, seed)
        )
        if global_factors is None:
            notes.append("global factors left out: the decomposition did not converge")
        else:
            _subtract_global(residual, global_factors)
            rows = row_energies(residual)
            global_energy = 1 - float(rows.sum()) / total

    out_features, in_features = weight.shape
    shapes = block_shapes(out_features, in_features, local_rank, factor_bits) if total else ()
    if shapes:
        if not effort.all_shapes:
            shapes = (predicted_shape(rows, in_features, shapes),)
        local_factors = _converging(
            residual, lambda w: _local_factors(w, shapes, factor_bits, effort, seed)
        )
        if local_factors is None:
            notes.append("local factors left out: the decomposition did not converge")
        else:
            _subtract_local(residual, local_factors)
            local_energy = 1 - global_energy - energy(residual) / total
    if exponent:
        residual.mul_(2.0**exponent)
        global_factors = _scaled(global_factors, 2.0**exponent)
        local_factors = _scaled(local_factors, 2.0**exponent)
    return HierarchicalFactors(
        global_factors,
        local_factors,
        residual,
        source_energy,
        max(global_energy, 0.0),
        max(local_energy, 0.0),
        "; ".join(notes),
    )


def _unusual_exponent(weight: Tensor) -> int:
    """The exponent of the largest magnitude; 0 where it is an ordinary one."""
    low, high = map(float, weight.aminmax())
    exponent = math.frexp(max(-low, high))[1]
    return 0 if abs(exponent) <= SAFE_EXPONENT else exponent


def _scaled(pair: FactorPair | None, factor: float) -> FactorPair | None:
    """A branch times a power of two, exactly."""
    if pair is None:
        return None
    if pair.scale is not None:
        return pair._replace(scale=pair.scale * factor)
    return pair._replace(up=pair.up * factor)


def _global_factors(
    weight: Tensor, rank: int, total: float, bits: int, effort: Effort, seed: int
) -> FactorPair:
    up, down = leading_factors(weight, rank, energy=total, tolerance=effort.tolerance, seed=seed)
    stored = store_factors(up.mT, down, bits)
    return stored._replace(up=stored.up.mT.contiguous(), down=stored.down.contiguous())


def _subtract_global(weight: Tensor, pair: FactorPair) -> None:
    """``weight -= SVD-G``, without the product in memory."""
    up = pair.up.to(weight.dtype)
    if pair.scale is not None:
        up = up * pair.scale
    weight.addmm_(up, pair.down.to(weight.dtype), alpha=-1)


def _local_factors(
    weight: Tensor, shapes: Sequence[tuple[int, int]], bits: int, effort: Effort, seed: int
) -> FactorPair:
    """Factors of the block shape that captures most energy."""
    tried = (
        _block_triples(weight, shape, _lanczos_steps(shape, effort.tolerance), seed)
        for shape in shapes
    )
    # The first wins a tie, and it has the fewest blocks.
    up, down = max(tried, key=lambda pair: energy(pair[0].flatten(1)))
    return store_factors(up, down, bits)


def _lanczos_steps(shape: tuple[int, int], tolerance: float) -> int:
    """Steps that bring local factors near enough to exact ones.

    Of a block without structure k steps miss about ``1.25 / k^2`` of the energy that the exact
    triple captures (measured for blocks of 96 to 512), and that energy is the `expected_share`.
    Blocks with structure need fewer steps.
    """
    steps = math.ceil(math.sqrt(2 * expected_share(shape) / tolerance))
    return min(max(steps, FEWEST_STEPS), MOST_STEPS)


def _block_triples(
    weight: Tensor, shape: tuple[int, int], steps: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Top singular triples of all blocks: up [P, Q, s_o] and down [P, Q, s_i]."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(shape[0], generator=generator).to(weight)
    # As many rows of blocks at a time as stay in a processor's largest cache from step to step.
    together = max(1, CACHED_NUMBERS // (shape[0] * weight.shape[1]))
    found = [
        leading_triples(blocks, steps, start) for blocks in _blocks(weight, *shape).split(together)
    ]
    return torch.cat([up for up, _ in found]), torch.cat([down for _, down in found])


def _blocks(weight: Tensor, rows: int, columns: int) -> Tensor:
    """[out, in] -> [P, Q, s_o, s_i], a view."""
    return weight.unflatten(1, (-1, columns)).unflatten(0, (-1, rows)).transpose(1, 2)


def _subtract_local(weight: Tensor, pair: FactorPair) -> None:
    """``weight -= SVD-L``, without the product in memory."""
    up = pair.up.to(weight.dtype)
    if pair.scale is not None:
        up = up * pair.scale[..., None]
    blocks = _blocks(weight, up.shape[-1], pair.down.shape[-1])
    blocks.addcmul_(up[..., :, None], pair.down.to(weight.dtype)[..., None, :], value=-1)


def _converging(weight: Tensor, factorise: Callable[[Tensor], FactorPair]) -> FactorPair | None:
    """Factorise in float32, else in float64, else not at all."""
    for dtype in (torch.float32, torch.float64):
        # The class is public, but not in torch's own list of exported names.
        with contextlib.suppress(torch.linalg.LinAlgError):  # type: ignore[attr-defined]
            return factorise(weight.to(dtype))
    return None
