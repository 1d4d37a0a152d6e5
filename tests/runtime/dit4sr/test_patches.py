"""Tokens and their positions: diffusers' ``PatchEmbed``, without its table."""

import pytest
import torch
from diffusers.models.embeddings import PatchEmbed

from artifacts.dit4sr.position_table import sincos_table
from runtime.dit4sr.patches import PatchEmbedding
from tests.artifacts.make_pack import TINY

CONFIG = TINY.model_copy(update={"pos_embed_max_size": 9})
LATENTS = [(2, 2), (18, 18), (4, 10), (10, 4), (18, 2)]


def both(dtype=torch.float32):
    """Ours and diffusers', with equal weights and the table as `sincos_table` has it."""
    torch.manual_seed(0)
    theirs = PatchEmbed(
        height=CONFIG.sample_size,
        width=CONFIG.sample_size,
        patch_size=CONFIG.patch_size,
        in_channels=CONFIG.in_channels,
        embed_dim=CONFIG.hidden_size,
        pos_embed_max_size=CONFIG.pos_embed_max_size,
    )
    theirs.pos_embed = sincos_table(CONFIG)
    ours = PatchEmbedding(CONFIG)
    ours.proj.load_state_dict(theirs.proj.state_dict())
    return ours.to(dtype), theirs.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", LATENTS)
def test_tokens_are_those_of_diffusers_to_the_bit(size, dtype):
    ours, theirs = both(dtype)
    latent = torch.randn(2, CONFIG.in_channels, *size).to(dtype)
    assert torch.equal(ours(latent), theirs(latent))


def test_no_table_is_held():
    ours = PatchEmbedding(CONFIG)
    assert set(ours.state_dict()) == {"proj.weight", "proj.bias"}
    held = sum(buffer.numel() for buffer in ours.buffers())
    assert held == sincos_table(CONFIG).numel() / (2 * CONFIG.pos_embed_max_size)


@pytest.mark.parametrize("assign", [True, False])
def test_a_table_of_the_state_dict_is_read_instead(assign):
    ours, theirs = both()
    table = torch.randn(theirs.pos_embed.shape).bfloat16()
    theirs.pos_embed = table.float()
    state = theirs.proj.state_dict(prefix="proj.") | {"pos_embed": table}
    ours.load_state_dict(state, assign=assign)
    assert ours.pos_embed.dtype == torch.bfloat16
    assert (ours.pos_embed is table) == assign
    latent = torch.randn(1, CONFIG.in_channels, 6, 8)
    assert torch.equal(ours(latent), theirs(latent))
    assert torch.equal(ours.state_dict()["pos_embed"], table)


def test_a_table_of_another_size_is_refused():
    state = PatchEmbedding(CONFIG).state_dict() | {"pos_embed": sincos_table(TINY)}
    with pytest.raises(RuntimeError, match="size mismatch for pos_embed"):
        PatchEmbedding(CONFIG).load_state_dict(state)


@pytest.mark.parametrize("size", [(20, 4), (4, 20)])
def test_a_latent_beyond_the_table_is_refused(size):
    with pytest.raises(ValueError, match="more than the position table's 9x9"):
        PatchEmbedding(CONFIG)(torch.randn(1, CONFIG.in_channels, *size))


def test_an_empty_network_knows_its_positions():
    with torch.device("meta"):
        empty = PatchEmbedding(CONFIG)
    empty.load_state_dict(PatchEmbedding(CONFIG).proj.state_dict(prefix="proj."), assign=True)
    assert torch.equal(empty.positions(9, 9), sincos_table(CONFIG))
