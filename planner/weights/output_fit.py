"""Global factors that make up for what rounding did to the layer's output (ours).

H-SVD takes the factors that leave the smallest residual, before anything is rounded. What the
output suffers from is the rounding error, along the directions that inputs have. So, once the
residual is rounded to Q, SVD-G is chosen again, as the best factors of everything that is not in Q
or SVD-L: of all pairs of that rank the one with the least ``tr(E M Eᵀ)``,

    E = W_H - SVD-L - Q - SVD-G

which is a singular value decomposition of ``(W_H - SVD-L - Q) U⁻¹``, with U as in
`planner.weights.moment_root`. With other factors another residual is left, which is rounded again,
and so on, as LoftQ (arXiv 2310.08659) alternates the two without moments; the last turn ends with
the factors. Bytes and kernels stay what they are: only numbers differ.
"""

import contextlib
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from artifacts.codec.factor_pair import FactorPair, global_product, store_factors
from artifacts.codec.gaussian_quantizer import dequantize_rows
from planner.weights.hsvd import HierarchicalFactors
from planner.weights.leading import leading_factors
from planner.weights.moment_root import MomentRoot
from planner.weights.row_energy import energy, row_energies
from planner.weights.row_scales import QuantizedRows


def fit_to_outputs(
    factors: HierarchicalFactors,
    root: MomentRoot,
    bits: int,
    round_rows: Callable[[Tensor], QuantizedRows],
    *,
    turns: int,
    tolerance: float,
    seed: int,
) -> tuple[HierarchicalFactors, QuantizedRows]:
    """Round what ``factors`` leave, and fit the global ones to it, in turn.

    Args:
        factors: as `planner.weights.hsvd.decompose` found them.
        root: of the second moment of what the residual is multiplied with.
        bits: of the codes.
        round_rows: rounds a residual float32 [out, in].
        turns: how many times factors are fitted; all but the first after rounding again.
        tolerance: of the search for factors (`planner.weights.leading`).
        seed: of its random start.

    Returns:
        Factors and codes that leave less error of the output than the first ones, or these.
    """
    codes = round_rows(factors.residual)
    pair = factors.global_factors
    if pair is None:
        return factors, codes
    rest = factors.residual + global_product(pair)
    best = factors, codes
    least = energy(
        root.whitened(factors.residual - dequantize_rows(codes.codes, codes.scale, bits))
    )
    for turn in range(turns):
        if turn:
            codes = round_rows(rest - global_product(pair))
        wanted = rest - dequantize_rows(codes.codes, codes.scale, bits)
        fitted = _best_pair(wanted, pair, root, tolerance, seed)
        if fitted is None:
            break
        pair = fitted
        error = wanted - global_product(pair)
        left = energy(root.whitened(error))
        if left < least:
            least = left
            best = (
                _with_pair(factors, pair, rest),
                codes._replace(squared_error=row_energies(error)),
            )
    return best


def _best_pair(
    wanted: Tensor, like: FactorPair, root: MomentRoot, tolerance: float, seed: int
) -> FactorPair | None:
    """Factors of ``wanted`` [out, in] with as many vectors and bits as ``like``.

    None where there is nothing to factorise, or the decomposition does not converge.
    """
    whitened = root.whitened(wanted)
    largest = whitened.abs().max()
    if not 0 < float(largest) < torch.inf:
        return None
    whitened /= largest  # squares must neither vanish nor overflow
    with contextlib.suppress(torch.linalg.LinAlgError):  # type: ignore[attr-defined]
        up, down = leading_factors(
            whitened,
            like.down.shape[0],
            energy=energy(whitened),
            tolerance=tolerance,
            seed=seed,
        )
        stored = store_factors((up * largest).mT, down @ root.upper, like.bits)
        return stored._replace(up=stored.up.mT.contiguous(), down=stored.down.contiguous())
    return None


def _with_pair(factors: HierarchicalFactors, pair: FactorPair, rest: Tensor) -> HierarchicalFactors:
    """``factors`` with other global ones; ``rest`` is the weight without the local ones."""
    residual = rest - global_product(pair)
    both = 1 - energy(residual) / factors.energy
    return replace(
        factors,
        global_factors=pair,
        residual=residual,
        global_energy=max(both - factors.local_energy, 0.0),
    )
