"""Tiles: they cover everything, blend without a trace, and keep to the grid of patches."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from runtime.sampling.tiling import blend_tiles, gaussian_weights, tile_starts, tiles_of

PATCH = 2
patches = st.integers(min_value=1, max_value=40)


@given(patches, patches, st.integers(1, 20), st.data())
def test_tiles_cover_exactly_and_lie_on_the_patch_grid(rows, columns, tile, data):
    overlap = data.draw(st.integers(0, tile - 1))
    height, width = PATCH * rows, PATCH * columns
    tiles = tiles_of(height, width, PATCH * tile, PATCH * overlap, PATCH)
    covered = torch.zeros(height, width)
    for part in tiles:
        assert part.top % PATCH == part.left % PATCH == 0
        assert part.top + part.height <= height
        assert part.left + part.width <= width
        part.of(covered).add_(1)
    assert covered.min() >= 1
    assert len(set(tiles)) == len(tiles)


@given(st.integers(1, 400), st.integers(1, 60), st.data())
def test_neighbours_share_at_least_the_overlap(length, tile, data):
    overlap = data.draw(st.integers(0, tile - 1))
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - tile)
    steps = [after - before for before, after in pairwise(starts)]
    assert all(0 < step <= tile - overlap for step in steps)


def test_published_layout_of_a_1024_px_image():
    assert tile_starts(128, 64, 24) == [0, 40, 64]
    assert tile_starts(64, 64, 24) == [0]


@pytest.mark.parametrize(("tile", "overlap"), [(8, 8), (8, -1), (8, 9)])
def test_overlap_that_does_not_fit_is_refused(tile, overlap):
    with pytest.raises(ValueError, match="overlap"):
        tile_starts(100, tile, overlap)


@pytest.mark.parametrize("sizes", [(7, 8, 4, 2), (8, 7, 4, 2), (8, 8, 3, 2), (8, 8, 4, 1)])
def test_lengths_off_the_patch_grid_are_refused(sizes):
    with pytest.raises(ValueError, match="multiple of the patch size"):
        tiles_of(*sizes, patch=2)


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (2, 64), (7, 9)])
def test_weights_are_positive_symmetric_and_peak_at_the_centre(size):
    weights = gaussian_weights(*size)
    assert weights.float().min() > 0
    torch.testing.assert_close(weights, weights.flip(0, 1))
    assert weights.max() == weights[size[0] // 2, size[1] // 2]


def test_weights_have_the_variance_of_the_tile_they_claim():
    """A quarter of the side from the centre is 2.5 standard deviations of 0.1."""
    line = gaussian_weights(1, 1001)[0]
    assert line[500] == 1
    quarter = 250 / 1001
    assert line[750].item() == pytest.approx(torch.exp(torch.tensor(-(quarter**2) / 0.02)).item())


def test_a_field_given_piece_by_piece_is_put_together_again():
    field = torch.randn(1, 4, 46, 30, generator=torch.Generator().manual_seed(0))
    tiles = tiles_of(46, 30, 16, 6, 2)
    blended = blend_tiles((tile.of(field) for tile in tiles), field, tiles)
    torch.testing.assert_close(blended, field)


def test_a_single_tile_is_the_function_itself():
    field = torch.randn(1, 4, 6, 10)
    tiles = tiles_of(6, 10, 64, 24, 2)
    assert len(tiles) == 1
    assert torch.equal(blend_tiles([3 * tiles[0].of(field)], field, tiles), 3 * field)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_every_tile_has_one_result(count):
    field = torch.zeros(1, 1, 4, 8)
    tiles = tiles_of(4, 8, 4, 2)
    assert len(tiles) == 3
    with pytest.raises(ValueError, match=r"shorter|longer|unpack"):
        blend_tiles([torch.zeros(1, 1, 4, 4)] * count, field, tiles)


def test_tiled_is_nearly_untiled_for_a_local_operator():
    """A 3x3 blur differs only in a tile's outermost pixels, whose weight is smallest.

    The worst such pixel: a neighbour overlaps it by 8 of 16, so it lies at its own tile's border
    (weight exp(-11)) and at another's centre; the relative weight is under 1e-4.
    """
    field = torch.rand(1, 1, 64, 48, generator=torch.Generator().manual_seed(1))

    def blur(x):
        return F.avg_pool2d(x, 3, stride=1, padding=1)

    whole = blur(field)

    def blended(overlap):
        tiles = tiles_of(64, 48, 16, overlap, 2)
        return blend_tiles((blur(tile.of(field)) for tile in tiles), field, tiles)

    assert (blended(8) - whole).abs().max() < 1e-4
    # Without an overlap the borders do show: the bound above is earned, not given.
    assert (blended(0) - whole).abs().max() > 1e-2
