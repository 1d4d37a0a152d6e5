"""The budget of weight bits with a table in the place of some layers."""

from fractions import Fraction

import pytest

from planner.allocate.table_share import NO_TABLE, TableShare, mean_weight_bits
from schemas.bit_widths import UNQUANTIZED
from schemas.errors import UsageError
from schemas.manifest import LayerRecord


def test_a_table_of_the_targets_size_changes_nothing():
    assert TableShare(100, 400).mean_of_rest(4, 300) == 4
    assert NO_TABLE.mean_of_rest(3.7, 300) == 3.7


def test_what_the_table_saves_goes_to_the_other_weights_and_no_more():
    share = TableShare(100, 100)
    left = share.mean_of_rest(4, 300)
    assert left == 5
    for weights in (7, 299, 1001):
        left = Fraction(repr(float(share.mean_of_rest(3.7, weights))))
        spent = left * weights + share.bits
        allowed = Fraction(37, 10) * (weights + share.weights)
        assert 0 <= allowed - spent < Fraction(weights, 10**6)


def test_a_table_larger_than_everything_is_refused():
    with pytest.raises(UsageError, match="more than 2 bits per weight"):
        TableShare(10, 100).mean_of_rest(2, 40)


@pytest.mark.parametrize(("bits", "pays"), [(399, True), (400, False)])
def test_a_table_pays_below_the_size_of_the_codes(bits, pays):
    assert TableShare(100, bits).pays(4) is pays


def test_the_mean_counts_the_table_and_leaves_out_what_is_kept():
    records = {
        "a": LayerRecord(weight_bits=6, in_features=10, out_features=10),
        "b": LayerRecord(weight_bits=UNQUANTIZED, in_features=50, out_features=50),
    }
    assert mean_weight_bits(records) == 6
    assert mean_weight_bits(records, TableShare(200, 300)) == 3
