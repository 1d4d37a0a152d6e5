"""Krylov methods against exact decompositions."""

import pytest
import torch

from planner.weights import leading
from planner.weights.leading import leading_factors, leading_triples


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def energy(values):
    return float(values.double().square().sum())


def exact_energy(matrices, rank):
    return float(torch.linalg.svdvals(matrices.double())[..., :rank].square().sum())


def factors(matrix, rank, tolerance=1e-5, seed=0):
    return leading_factors(matrix, rank, energy=energy(matrix), tolerance=tolerance, seed=seed)


def decaying(rows, columns, power):
    left = torch.linalg.qr(gaussian(rows, min(rows, columns))).Q
    right = torch.linalg.qr(gaussian(columns, min(rows, columns), seed=1)).Q
    return left * torch.arange(1, min(rows, columns) + 1.0) ** -power @ right.T


@pytest.mark.parametrize("power", [0, 0.2, 1])
@pytest.mark.parametrize(
    ("rows", "columns", "rank"),
    [(700, 640, 16), (640, 700, 16), (500, 500, 32), (900, 300, 4), (96, 200, 16), (200, 96, 90)],
)
def test_factors_capture_what_exact_ones_do(power, rows, columns, rank):
    matrix = decaying(rows, columns, power) if power else gaussian(rows, columns)
    up, down = factors(matrix, rank)
    exact = exact_energy(matrix, rank)
    assert energy(up) > 0.999 * exact
    # What the factors claim is what their product removes.
    left = energy(matrix - up @ down)
    assert left == pytest.approx(energy(matrix) - energy(up), abs=1e-5 * energy(matrix))
    assert torch.allclose(down.norm(dim=1), torch.ones(rank), atol=1e-5)
    assert torch.allclose(down @ down.T, torch.eye(rank), atol=1e-3)


@pytest.mark.parametrize("tolerance", [0.01, 0.0014])
@pytest.mark.parametrize("power", [0, 0.2, 0.5, 1])
def test_what_is_left_to_gain_is_about_what_was_tolerated(power, tolerance):
    matrix = decaying(800, 600, power) if power else gaussian(800, 600)
    up, _ = factors(matrix, 12, tolerance)
    exact, total = exact_energy(matrix, 12), energy(matrix)
    # The last two gains are extrapolated, and gains do not shrink quite so evenly.
    assert exact - energy(up) < 2 * tolerance * (total - exact)


def test_a_looser_tolerance_stops_sooner(monkeypatch):
    depths = []
    true_orthonormal = leading._orthonormal
    monkeypatch.setattr(
        leading, "_orthonormal", lambda v, known: depths.append(1) or true_orthonormal(v, known)
    )
    matrix = gaussian(800, 600)
    taken = []
    for tolerance in (0.01, 0.0014, 1e-5):
        depths.clear()
        factors(matrix, 12, tolerance)
        taken.append(len(depths))
    assert taken[0] < taken[1] < taken[2] <= leading.WIDEST_BASIS


def test_orientation_does_not_matter():
    matrix = decaying(400, 300, 1)
    up, down = factors(matrix, 3)
    up_t, down_t = factors(matrix.T, 3)
    assert torch.allclose(up @ down, (up_t @ down_t).T, atol=1e-5)


@pytest.mark.parametrize("rows", [300, 500])
def test_a_matrix_of_lower_rank(rows):
    matrix = gaussian(rows, 3) @ gaussian(3, 400, seed=1)
    up, down = factors(matrix, 12)
    assert energy(matrix - up @ down) < 1e-9 * energy(matrix)
    assert bool(torch.isfinite(up).all() and torch.isfinite(down).all())


@pytest.mark.parametrize("size", [20, 300])
def test_a_zero_matrix(size):
    up, down = factors(torch.zeros(size, size), 12)
    assert not up.any()
    assert bool(torch.isfinite(down).all())


@pytest.mark.parametrize(
    "shape", [(3, 5, 24, 40), (1, 5, 40, 24), (3, 1, 1, 7), (3, 2, 7, 1), (1, 2, 1, 1)]
)
def test_triples_are_exact_with_as_many_steps_as_there_are_columns(shape):
    blocks = gaussian(*shape)
    up, down = leading_triples(blocks, 100, gaussian(shape[2], seed=2))
    left, values, right = torch.linalg.svd(blocks)
    exact = left[..., :1] * values[..., None, :1] @ right[..., :1, :]
    assert torch.allclose(up[..., None] * down[..., None, :], exact, atol=1e-4)
    assert torch.allclose(up.norm(dim=-1), values[..., 0], rtol=1e-5)
    assert torch.allclose(down.norm(dim=-1), torch.ones(shape[:2]), atol=1e-6)


def test_triples_of_flat_blocks_lose_a_little():
    blocks = gaussian(2, 3, 96, 128)
    up, _ = leading_triples(blocks, 5, gaussian(96, seed=2))
    assert 0.9 < energy(up) / exact_energy(blocks, 1) < 1
    up, _ = leading_triples(blocks, 24, gaussian(96, seed=2))
    assert energy(up) > 0.999 * exact_energy(blocks, 1)


def test_triples_of_blocks_without_a_full_rank():
    blocks = gaussian(1, 4, 24, 40)
    blocks[0, 0] = 0
    blocks[0, 1] = torch.outer(gaussian(24), gaussian(40, seed=3))
    blocks[0, 2, :, 5:] = 0
    up, down = leading_triples(blocks, 12, gaussian(24, seed=2))
    assert not up[0, 0].any()
    assert bool(torch.isfinite(down).all())
    assert torch.allclose(up[0, 1][:, None] * down[0, 1], blocks[0, 1], atol=1e-4)
    exact = torch.linalg.svdvals(blocks)[..., 0]
    assert torch.allclose(up.norm(dim=-1), exact, rtol=1e-3)


def test_views_of_any_strides_will_do():
    matrix = gaussian(48, 80)
    view = matrix.unflatten(1, (4, 20)).unflatten(0, (2, 24)).transpose(1, 2)
    start = gaussian(24, seed=2)
    for found, expected in zip(
        leading_triples(view, 4, start), leading_triples(view.contiguous(), 4, start), strict=True
    ):
        assert torch.allclose(found, expected, atol=1e-5)
