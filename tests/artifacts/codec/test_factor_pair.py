"""Low-rank branches as they are stored."""

import pytest
import torch

from artifacts.codec.factor_pair import global_product, local_product, store_factors


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(("bits", "bound"), [(16, 2**-8), (8, 0.012)])
def test_a_stored_branch_is_the_branch_but_for_rounding(bits, bound):
    """8 bits: a step of max / 127 errs by step / sqrt(12), twice, with max about 3.5 sigma."""
    up, down = normal(40, 3), normal(3, 96, seed=1)
    pair = store_factors(up.mT, down, bits)
    pair = pair._replace(up=pair.up.mT)
    assert pair.bits == bits
    assert relative(global_product(pair), up @ down) < bound
    up, down = normal(4, 5, 10), normal(4, 5, 12, seed=1)
    blocks = torch.einsum("pqo,pqi->poqi", up, down).reshape(40, 60)
    assert relative(local_product(store_factors(up, down, bits)), blocks) < bound


def test_integers_use_their_range_and_no_more():
    pair = store_factors(normal(2, 50), normal(2, 60, seed=1), 8)
    for side in (pair.up, pair.down):
        assert side.dtype == torch.int8
        assert side.abs().amax(-1).tolist() == [127, 127]
    assert pair.scale.dtype == torch.float32


def test_a_pair_of_zeros_decodes_to_zeros():
    pair = store_factors(torch.zeros(1, 4), normal(1, 6), 8)
    assert pair.scale.tolist() == [0]
    assert not local_product(store_factors(torch.zeros(1, 1, 4), normal(1, 1, 6), 8)).any()
