"""H-SVD against exact decompositions."""

import math

import pytest
import torch

from artifacts.codec.block_shapes import block_shapes
from artifacts.codec.factor_pair import global_product, local_product
from planner.weights.effort import EFFORTS
from planner.weights.hsvd import decompose
from planner.weights.row_scales import quantize_weight_rows
from tests.planner.diverging_eigh import diverging_eigh

THOROUGH = EFFORTS["thorough"]
LOST = 1e-3
"""Share of the exact factors' energy that thorough ones may miss (method, Sec. 3.2)."""
NEAR_DB = 0.02
"""What normal effort may cost, against exact factors."""


def gaussian(rows, columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator)


def with_spectrum(rows, columns, spectrum, seed=0):
    """A matrix with random singular vectors and the first singular values of ``spectrum``."""
    count = min(rows, columns)
    left = torch.linalg.qr(gaussian(rows, count, seed)).Q
    right = torch.linalg.qr(gaussian(columns, count, seed + 1)).Q
    values = torch.tensor([spectrum(k) for k in range(1, count + 1)])
    return (left * values) @ right.T


def matrix(kind, rows, columns):
    spectra = {
        "slow": lambda k: k**-0.2,
        "power": lambda k: 1 / k,
        "exponential": lambda k: math.exp(-k / 10),
    }
    return (
        gaussian(rows, columns)
        if kind == "gaussian"
        else with_spectrum(rows, columns, spectra[kind])
    )


def exact_energy(blocks, rank):
    """Energy of the best rank-``rank`` approximation of each matrix, summed."""
    return float(torch.linalg.svdvals(blocks.double())[..., :rank].square().sum())


def energy(tensor):
    return float(tensor.double().square().sum())


def test_a_budget_below_one_block_leaves_the_local_branch_out():
    factors = decompose(gaussian(1, 1), global_rank=0, local_rank=1)
    assert factors.local_factors is None
    assert factors.note == ""


def local_blocks(weight, factors):
    """The residual that SVD-L saw, in the chosen blocks [P, Q, s_o, s_i]."""
    rows, columns = factors.local_factors.up.shape[-1], factors.local_factors.down.shape[-1]
    rest = weight
    if factors.global_factors is not None:
        rest = weight - factors.global_factors.up.float() @ factors.global_factors.down.float()
    return rest.unflatten(1, (-1, columns)).unflatten(0, (-1, rows)).transpose(1, 2)


def exact_residual(weight, global_rank, local_rank):
    """What exact factors leave: a full decomposition, and every block of the best shape."""
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    rest = weight.double() - (left * values)[:, :global_rank] @ right[:global_rank]

    def without_blocks(shape):
        cut = rest.unflatten(1, (-1, shape[1])).unflatten(0, (-1, shape[0])).transpose(1, 2)
        u, s, v = torch.linalg.svd(cut, full_matrices=False)
        top = u[..., :1] * s[..., None, :1] @ v[..., :1, :]
        return (cut - top).transpose(1, 2).reshape(weight.shape)

    return min(map(without_blocks, block_shapes(*weight.shape, local_rank)), key=energy).float()


@pytest.mark.parametrize(("rows", "columns"), [(768, 384), (384, 768), (512, 512)])
@pytest.mark.parametrize("kind", ["gaussian", "outlying rows", "slow", "power", "exponential"])
def test_normal_effort_costs_a_layer_next_to_nothing(kind, rows, columns):
    weight = matrix(kind.replace("outlying rows", "gaussian"), rows, columns)
    weight = weight / weight.square().mean().sqrt()
    if kind != "gaussian":
        weight = weight + 0.3 * gaussian(rows, columns, 9)
    if kind == "outlying rows":
        weight[::53] *= 4
    exact = exact_residual(weight, 12, 4)
    ours = decompose(weight, global_rank=12, local_rank=4).residual
    assert 10 * math.log10(energy(ours) / energy(exact)) < NEAR_DB
    errors = [
        float(quantize_weight_rows(r, 4, "gaussian").squared_error.sum()) for r in (exact, ours)
    ]
    # Rounding 300,000 numbers gives a mean square that is itself uncertain by 0.02 dB.
    assert 10 * math.log10(errors[1] / errors[0]) < 2 * NEAR_DB


@pytest.mark.parametrize(
    ("rows", "columns", "global_rank", "local_rank"),
    [(96, 96, 0, 4), (320, 400, 8, 2), (512, 128, 4, 8), (30, 42, 2, 3)],
)
def test_local_factors_are_each_blocks_top_singular_triple(rows, columns, global_rank, local_rank):
    weight = gaussian(rows, columns)
    factors = decompose(weight, global_rank=global_rank, local_rank=local_rank, effort=THOROUGH)
    blocks = local_blocks(weight, factors).double()
    up, down = factors.local_factors.up.double(), factors.local_factors.down.double()
    left, values, right = torch.linalg.svd(blocks, full_matrices=False)
    # bfloat16 rounds each number by at most 2^-9 of itself.
    sigma = up.norm(dim=-1)
    assert torch.allclose(sigma, values[..., 0], rtol=0.01)
    assert abs(1 - energy(up) / float(values[..., 0].square().sum())) < LOST + 2**-9
    # Vectors only where the second value is so far off that they are well defined.
    clear = values[..., 1] < 0.8 * values[..., 0]
    cosine_left = (left[..., 0] * up / sigma[..., None]).sum(-1).abs()
    cosine_right = (right[..., 0, :] * down).sum(-1).abs()
    assert bool((cosine_left[clear] > 0.99).all())
    assert bool((cosine_right[clear] > 0.99).all())
    numbers = factors.local_factors.up.numel() + factors.local_factors.down.numel()
    assert numbers <= local_rank * (rows + columns)


def test_local_vectors_match_where_blocks_have_a_clear_top():
    weight = torch.cat([with_spectrum(32, 64, lambda k: 4.0**-k, seed) for seed in range(4)])
    factors = decompose(weight, global_rank=0, local_rank=3)
    blocks = local_blocks(weight, factors)
    left, values, right = torch.linalg.svd(blocks.double(), full_matrices=False)
    top = values[..., :1, None] * left[..., :, :1] @ right[..., :1, :]
    ours = torch.einsum(
        "pqo,pqi->pqoi", factors.local_factors.up.double(), factors.local_factors.down.double()
    )
    assert energy(ours - top) < 1e-4 * energy(top)


@pytest.mark.parametrize(
    "weight",
    [
        gaussian(160, 192),
        gaussian(160, 192) * torch.logspace(0, -2, 192),
        gaussian(160, 192) * torch.logspace(0, -2, 160)[:, None],
        # One bright patch: a shape that frames it wins by far.
        torch.nn.functional.pad(gaussian(20, 24), (24, 144, 40, 100)) + 0.1 * gaussian(160, 192, 1),
    ],
    ids=["flat", "columns", "rows", "patch"],
)
def test_the_chosen_block_shape_is_the_best_affordable_one(weight):
    rows, columns = weight.shape
    factors = decompose(weight, global_rank=0, local_rank=8, effort=THOROUGH)
    chosen = factors.local_factors.up.shape[-1], factors.local_factors.down.shape[-1]

    def captured(shape):
        blocks = weight.unflatten(1, (-1, shape[1])).unflatten(0, (-1, shape[0])).transpose(1, 2)
        return exact_energy(blocks, 1)

    shapes = [
        (r, c)
        for r in range(1, rows + 1)
        for c in range(1, columns + 1)
        if rows % r == 0 == columns % c
        and (rows // r) * (columns // c) * (r + c + 1) <= 8 * (rows + columns)
    ]
    assert captured(chosen) >= (1 - LOST) * max(map(captured, shapes))


def assert_adds_up(weight, factors):
    """weight = SVD-G + SVD-L + residual, to the rounding of two float32 subtractions."""
    total = factors.residual.double()
    if factors.global_factors is not None:
        total = total + global_product(factors.global_factors, torch.float64)
    if factors.local_factors is not None:
        total = total + local_product(factors.local_factors, torch.float64)
    error = (total - weight.double()).abs().max()
    # Products of rank r are summed in float32: r roundings of numbers no larger than this.
    largest = float(weight.abs().max()) + float(factors.residual.abs().max())
    rank = 0 if factors.global_factors is None else factors.global_factors.up.shape[1]
    assert float(error) <= (rank + 3) * 2**-23 * largest


@pytest.mark.parametrize("factor_bits", [8, 16])
@pytest.mark.parametrize(
    ("rows", "columns", "global_rank", "local_rank"),
    [
        (96, 128, 8, 4),
        (128, 96, 0, 4),
        (96, 128, 8, 0),
        (96, 128, 0, 0),
        (16, 24, 16, 2),
        (16, 24, 1000, 1000),
        (1, 48, 1, 2),
        (48, 1, 1, 2),
        (1, 1, 1, 8),
        (13, 17, 3, 2),
    ],
)
def test_the_parts_add_up_to_the_weight(rows, columns, global_rank, local_rank, factor_bits):
    weight = gaussian(rows, columns)
    factors = decompose(
        weight, global_rank=global_rank, local_rank=local_rank, factor_bits=factor_bits
    )
    for pair in (factors.global_factors, factors.local_factors):
        assert pair is None or pair.bits == factor_bits
    assert (factors.global_factors is None) == (global_rank == 0)
    if global_rank:
        assert factors.global_factors.up.shape == (rows, min(global_rank, rows, columns))
    if local_rank == 0:
        assert factors.local_factors is None
    assert_adds_up(weight, factors)
    shares = (
        factors.global_energy + factors.local_energy + energy(factors.residual) / energy(weight)
    )
    assert shares == pytest.approx(1, abs=1e-6)
    assert factors.note == ""


@pytest.mark.parametrize("shape", [(16, 24), (24, 16), (1, 24)])
def test_a_full_rank_leaves_nothing_but_rounding(shape):
    weight = gaussian(*shape)
    factors = decompose(weight, global_rank=99, local_rank=0)
    assert energy(factors.residual) < 2**-14 * energy(weight)
    assert factors.global_energy == pytest.approx(1, abs=2**-14)


def test_a_zero_weight_gets_no_factors():
    factors = decompose(torch.zeros(32, 48), global_rank=4, local_rank=4)
    assert factors.global_factors is None
    assert factors.local_factors is None
    assert not factors.residual.any()
    assert (factors.global_energy, factors.local_energy, factors.note) == (0, 0, "")


def test_a_weight_of_lower_rank_than_asked_for():
    weight = torch.outer(torch.arange(1.0, 601.0), torch.ones(500))
    factors = decompose(weight, global_rank=8, local_rank=2)
    assert bool(torch.isfinite(factors.residual).all())
    assert factors.global_energy > 0.9999
    assert_adds_up(weight, factors)


@pytest.mark.parametrize("scale", [1e-24, 1e-12, 1e10, 1e15])
def test_scale_changes_nothing_but_scale(scale):
    weight = gaussian(96, 128)
    plain = decompose(weight, global_rank=8, local_rank=4)
    scaled = decompose(weight * scale, global_rank=8, local_rank=4)
    if scale > 1e-20:  # below, products of two values vanish, and so may the factors
        assert scaled.global_energy == pytest.approx(plain.global_energy, rel=1e-3)
    assert bool(torch.isfinite(scaled.residual).all())
    assert_adds_up(weight * scale, scaled)


def test_the_seed_decides_and_nothing_else():
    weight = gaussian(700, 640)
    first = decompose(weight, global_rank=8, local_rank=2, seed=3)
    torch.manual_seed(99)
    again = decompose(weight, global_rank=8, local_rank=2, seed=3)
    other = decompose(weight, global_rank=8, local_rank=2, seed=4)
    assert torch.equal(first.residual, again.residual)
    assert not torch.equal(first.residual, other.residual)


def test_a_decomposition_that_does_not_converge_is_tried_in_float64(monkeypatch):
    weight = gaussian(96, 128)
    plain = decompose(weight, global_rank=8, local_rank=4)
    monkeypatch.setattr(torch.linalg, "eigh", diverging_eigh(torch.float32))
    retried = decompose(weight, global_rank=8, local_rank=4)
    assert retried.note == ""
    assert retried.global_energy == pytest.approx(plain.global_energy, rel=1e-4)
    assert retried.local_energy == pytest.approx(plain.local_energy, rel=1e-2)
    assert_adds_up(weight, retried)


def test_a_decomposition_that_never_converges_is_left_out_and_noted(monkeypatch):
    weight = gaussian(96, 128)
    monkeypatch.setattr(torch.linalg, "eigh", diverging_eigh(torch.float32, torch.float64))
    factors = decompose(weight, global_rank=8, local_rank=4)
    assert factors.global_factors is None
    assert factors.local_factors is None
    assert torch.equal(factors.residual, weight)
    assert "global factors left out" in factors.note
    assert "local factors left out" in factors.note


def test_8_bit_factors_of_twice_the_rank_leave_less_for_the_same_bytes():
    weight = with_spectrum(192, 384, lambda k: 1 / k) + 0.002 * gaussian(192, 384, 7)
    wide = decompose(weight, global_rank=4, local_rank=2)
    narrow = decompose(weight, global_rank=8, local_rank=4, factor_bits=8)
    assert energy(narrow.residual) < 0.8 * energy(wide.residual)
    stored = sum(tensor.nbytes for tensor in narrow.parts().values() if tensor is not None)
    # Both budgets are 2 (4 + 2) (192 + 384) bytes; the scales of SVD-G come on top.
    assert stored <= 12 * (192 + 384) + 8 * 4
