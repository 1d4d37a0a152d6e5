"""Predicted energies of blocks against decompositions."""

import pytest
import torch

from artifacts.codec.block_shapes import block_shapes, expected_block, expected_share
from planner.weights.block_choice import predicted_energy, predicted_shape
from planner.weights.row_energy import row_energies


def weight_of(kind, rows, columns):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    if kind == "outliers":
        weight[::61] *= 4
    if kind == "slope":
        weight *= torch.logspace(0, -1, rows)[:, None]
    if kind == "heads":
        weight *= torch.rand(
            rows // 32, generator=torch.Generator().manual_seed(1)
        ).repeat_interleave(32)[:, None]
    if kind == "zeros":
        weight[: rows // 2] = 0
    return weight


def captured(weight, shape):
    """Exactly, the energy of the leading triples of all blocks."""
    blocks = weight.unflatten(1, (-1, shape[1])).unflatten(0, (-1, shape[0])).transpose(1, 2)
    return float(torch.linalg.svdvals(blocks)[..., 0].double().square().sum())


@pytest.mark.parametrize("kind", ["flat", "outliers", "slope", "heads", "zeros"])
@pytest.mark.parametrize(("rows", "columns"), [(384, 384), (768, 192), (192, 768)])
def test_the_predicted_shape_is_as_good_as_the_best(kind, rows, columns):
    weight = weight_of(kind, rows, columns)
    shapes = block_shapes(rows, columns, 8)
    energies = row_energies(weight)
    best = max(captured(weight, shape) for shape in shapes)
    chosen = predicted_shape(energies, columns, shapes)
    # One in fifty of a branch that removes one in fifty: 0.002 dB.
    assert captured(weight, chosen) > 0.98 * best
    for shape in shapes:
        # Small blocks stay a little below the limit of large ones.
        assert predicted_energy(energies, columns, shape) == pytest.approx(
            captured(weight, shape), rel=0.15
        )


@pytest.mark.parametrize("shape", [(4, 16), (48, 24), (192, 192)])
def test_equal_rows_give_the_share_of_a_weight_without_structure(shape):
    energies = torch.full((192,), 7.0, dtype=torch.float64)
    share = predicted_energy(energies, 192, shape) / float(energies.sum())
    assert share == pytest.approx(expected_share(shape), rel=0.1)
    chosen = predicted_shape(energies, 192, block_shapes(192, 192, 8))
    assert expected_share(chosen) == expected_share(expected_block(192, 192, 8))
