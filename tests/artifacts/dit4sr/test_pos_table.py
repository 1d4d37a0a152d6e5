import pytest
import torch
from diffusers.models.embeddings import PatchEmbed

from artifacts.dit4sr.position_table import is_sincos, sincos_table
from tests.artifacts.make_pack import TINY

CONFIGS = [
    TINY,
    TINY.model_copy(update={"sample_size": 17, "pos_embed_max_size": 5}),
    TINY.model_copy(update={"sample_size": 128, "pos_embed_max_size": 96}),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_equals_diffusers(config):
    embed = PatchEmbed(
        height=config.sample_size,
        width=config.sample_size,
        patch_size=config.patch_size,
        in_channels=config.in_channels,
        embed_dim=config.hidden_size,
        pos_embed_max_size=config.pos_embed_max_size,
    )
    # Same formula in the same precision; angles may differ by the order of two roundings.
    torch.testing.assert_close(sincos_table(config), embed.pos_embed, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_recognised_after_rounding(dtype):
    assert is_sincos(sincos_table(TINY).to(dtype), TINY)


def test_rounded_table_held_in_float32_is_recognised():
    assert is_sincos(sincos_table(TINY).bfloat16().float(), TINY)


@pytest.mark.parametrize("value", [0.01, -0.01, float("nan"), float("inf")])
@pytest.mark.parametrize("place", [(0, 0), (63, 31), (20, 16)])
def test_one_other_value_is_enough(value, place):
    table = sincos_table(TINY)
    table[0, place[0], place[1]] += value
    assert not is_sincos(table, TINY)


def test_rows_and_columns_are_not_interchangeable():
    table = sincos_table(TINY)
    side = TINY.pos_embed_max_size
    turned = table.view(side, side, -1).transpose(0, 1).reshape(table.shape)
    assert not is_sincos(turned, TINY)
    assert not is_sincos(table[:, 1:], TINY)
