from typing import Annotated

import pytest
from pydantic import ValidationError

from schemas.bit_grid import MAX_LAYERS, BitGrid
from schemas.bounds import at_most
from schemas.strict import StrictModel


class Two(StrictModel):
    items: Annotated[list[int], at_most(2)]
    table: Annotated[dict[str, int], at_most(2)]


def test_up_to_the_bound_and_no_further():
    Two(items=[1, 2], table={"a": 1, "b": 2})
    with pytest.raises(ValidationError, match="3 entries, more than the limit of 2"):
        Two(items=[1, 2, 3], table={})
    with pytest.raises(ValidationError, match="3 entries, more than the limit of 2"):
        Two(items=[], table={"a": 1, "b": 2, "c": 3})


def test_items_beyond_the_bound_are_not_looked_at():
    layers = dict.fromkeys(map(str, range(MAX_LAYERS + 1)), "wrong")
    with pytest.raises(ValidationError) as caught:
        BitGrid(target={"weight_bits": 4, "activation_bits": 4}, timesteps=[1.0], layers=layers)
    assert [error["loc"] for error in caught.value.errors() if error["loc"][0] == "layers"] == [
        ("layers",)
    ]
