"""The inventory: every tensor has exactly one fate."""

import pytest
import torch

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.dit4sr.family import FAMILY
from artifacts.dit4sr.layout import POSITION_TABLE, block_linears, tensor_shapes
from artifacts.dit4sr.position_table import sincos_table
from artifacts.family import Architecture
from planner.build.inventory import take_inventory
from planner.build.network_probe import find_active_tensors
from planner.settings import BuildSettings
from planner.target import parse_target
from schemas.errors import UsageError
from tests.artifacts.make_checkpoint import random_state, write_folder
from tests.artifacts.make_pack import TINY


@pytest.fixture
def checkpoint(tmp_path):
    return open_checkpoint(write_folder(tmp_path / "m", random_state()))


def settings(**fields):
    return BuildSettings(parse_target("W4A4"), **fields)


@pytest.mark.parametrize("variant", ["q", "f", "r1"])
@pytest.mark.parametrize("keep", [(), ("norm1", "to_v$")])
def test_every_tensor_has_one_fate(checkpoint, variant, keep):
    inventory = take_inventory(checkpoint, settings(variant=variant, keep=keep))
    quantized = {f"{n}.{part}" for n in inventory.quantized for part in ("weight", "bias")}
    fates = [quantized, inventory.plain, inventory.omitted, inventory.rebuilt]
    together = [name for fate in fates for name in fate]
    assert sorted(together) == sorted(tensor_shapes(TINY))
    active = find_active_tensors(Architecture(FAMILY, TINY, variant))
    assert set(inventory.omitted) == set(tensor_shapes(TINY)) - active - {POSITION_TABLE}
    assert set(inventory.quantized) | set(inventory.kept) == {
        name for name in block_linears(TINY) if f"{name}.weight" in active
    }
    assert all("norm1" in name or name.endswith("to_v") for name in inventory.kept)
    assert bool(inventory.kept) == bool(keep)
    assert {f"{name}.weight" for name in inventory.kept} <= set(inventory.plain)


def test_lists_are_in_network_order_or_sorted(checkpoint):
    inventory = take_inventory(checkpoint, settings(keep=("to_q",)))
    order = list(block_linears(TINY)).index
    for names in (inventory.quantized, inventory.kept):
        assert list(names) == sorted(names, key=order)
    assert list(inventory.omitted) == sorted(inventory.omitted)


def test_a_pattern_for_a_layer_that_nothing_reads_finds_nothing(checkpoint):
    with pytest.raises(UsageError, match="finds none"):
        take_inventory(checkpoint, settings(keep=("attn2.add_q_proj",)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_table_of_sines_is_rebuilt_in_any_precision(tmp_path, dtype):
    opened = open_checkpoint(write_folder(tmp_path / "m", random_state(dtype=dtype)))
    assert take_inventory(opened, settings()).rebuilt == (POSITION_TABLE,)


def test_a_table_that_was_left_out_is_rebuilt(tmp_path):
    opened = open_checkpoint(write_folder(tmp_path / "m", random_state(table=False)))
    assert take_inventory(opened, settings()).rebuilt == (POSITION_TABLE,)


def test_a_table_with_one_changed_value_is_kept(tmp_path):
    state = random_state()
    table = sincos_table(TINY)
    table[0, -1, -1] += 0.01
    state[POSITION_TABLE] = table.bfloat16()
    inventory = take_inventory(open_checkpoint(write_folder(tmp_path / "m", state)), settings())
    assert inventory.rebuilt == ()
    assert POSITION_TABLE in inventory.plain
