"""Block shapes against all shapes there are, and the expected one against real decompositions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifacts.codec.block_shapes import block_shapes, expected_block, local_budget


def cost(out_features, in_features, rows, columns):  # Eq. 7
    return (out_features // rows) * (in_features // columns) * (rows + columns + 1)


@pytest.mark.parametrize(
    ("out_features", "in_features", "local_rank"),
    [(96, 96, 4), (128, 48, 8), (30, 42, 3), (1, 24, 1), (24, 1, 1), (7, 11, 2), (64, 64, 1)],
)
def test_shapes_keep_to_the_budget_and_leave_out_only_what_cannot_win(
    out_features, in_features, local_rank
):
    shapes = block_shapes(out_features, in_features, local_rank)
    allowed = local_budget(out_features, in_features, local_rank)
    assert allowed == local_rank * (out_features + in_features)
    affordable = [
        (rows, columns)
        for rows in range(1, out_features + 1)
        for columns in range(1, in_features + 1)
        if out_features % rows == 0 == in_features % columns
        and cost(out_features, in_features, rows, columns) <= allowed
    ]
    assert set(shapes) <= set(affordable)
    for rows, columns in affordable:
        assert any(rows % r == 0 and columns % c == 0 for r, c in shapes), (rows, columns)
    counts = [(out_features // rows) * (in_features // columns) for rows, columns in shapes]
    assert counts == sorted(counts)


def test_a_budget_below_one_block_has_no_shapes():
    assert block_shapes(8, 8, 0) == ()
    assert block_shapes(1, 1, 1) == ()  # one block costs 3, allowed are 2
    assert expected_block(1, 1, 1) is None


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 6))
def test_the_expected_shape_is_one_of_those_worth_trying(out_features, in_features, local_rank):
    shapes = block_shapes(out_features, in_features, local_rank)
    found = expected_block(out_features, in_features, local_rank)
    assert found in shapes if shapes else found is None


@pytest.mark.parametrize(
    ("out_features", "in_features", "block"),
    [
        (1536, 1536, (192, 256)),
        (6144, 1536, (256, 512)),
        (1536, 6144, (256, 512)),
        (9216, 1536, (256, 512)),
        (13824, 1536, (576, 256)),
    ],
)
def test_the_expected_shapes_of_the_published_layers(out_features, in_features, block):
    assert expected_block(out_features, in_features, 8) == block


def test_the_expected_shape_captures_most_of_a_random_weight():
    rows, columns, rank = 192, 384, 8
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))

    def captured(shape):
        blocks = weight.unflatten(1, (-1, shape[1])).unflatten(0, (-1, shape[0])).transpose(1, 2)
        return float(torch.linalg.matrix_norm(blocks, 2).square().sum() / weight.square().sum())

    shapes = block_shapes(rows, columns, rank)
    assert len(shapes) > 3
    best = captured(expected_block(rows, columns, rank))
    # Transposed shapes are equally good, but for chance.
    assert best > 0.98 * max(captured(shape) for shape in shapes)
    assert best > 1.05 * sorted(captured(shape) for shape in shapes)[len(shapes) // 2]
