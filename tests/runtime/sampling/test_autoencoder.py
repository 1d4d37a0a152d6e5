"""Images to latents and back: number formats and tiles."""

from dataclasses import replace

import pytest
import torch

from runtime.images.resizing import resize
from runtime.sampling.autoencoder import decode, decode_in_tiles, encode_in_tiles
from schemas.errors import PackError
from tests.runtime.likeness import likeness


def test_vae_multiplies_in_the_networks_bfloat16_and_in_nothing_narrower(tiny):
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen = []
    hook = tiny.vae.decoder.conv_in.register_forward_hook(lambda *call: seen.append(call[2]))
    wide, narrow, float16 = (
        decode_in_tiles(same, encode_in_tiles(same, image, 1024), 1024)
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
        for same in [replace(tiny, dtype=dtype)]
    )
    hook.remove()
    assert [y.dtype for y in seen] == [torch.float32, torch.bfloat16, torch.float32]
    assert torch.equal(float16, wide)
    assert narrow.dtype == torch.float32
    assert not torch.equal(narrow, wide)
    # Eight bits in every factor of some ten convolutions one after the other.
    assert (narrow - wide).norm() < 0.03 * wide.norm()


def test_vae_in_tiles_is_near_the_vae_at_once(tiny):
    """Group norms see one tile at a time, so the two differ; they must not differ in place.

    The image is an even texture, whose statistics are nearly the same in every tile.
    """
    noise = torch.rand(1, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    image = resize(noise, (96, 160))
    with torch.inference_mode():
        whole = encode_in_tiles(tiny, image, 160)
        tiled = encode_in_tiles(tiny, image, 64)
        assert tiled.shape == whole.shape == (1, 16, 24, 40)
        assert likeness(tiled, whole) > 0.9
        assert likeness(tiled.roll(1, dims=-1), whole) < 0.5  # a shift by one would be noticed
        at_once, in_tiles = decode_in_tiles(tiny, whole, 160), decode_in_tiles(tiny, whole, 64)
        assert in_tiles.shape == image.shape
        assert likeness(in_tiles, at_once) > 0.85


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e38])
def test_a_picture_that_is_not_finite_is_an_error_and_not_a_result(tiny, value):
    latent = torch.zeros(1, 16, 4, 4)
    latent[0, 3, 1, 2] = value
    with torch.inference_mode(), pytest.raises(PackError, match="not finite") as caught:
        decode(tiny, latent)
    assert "--dtype float32" in caught.value.hint


def test_tiles_of_one_image_are_not_those_of_another(tiny):
    """The module's own settings stay as they are: threads share it."""
    before = (tiny.vae.use_tiling, tiny.vae.tile_sample_min_size, tiny.vae.tile_latent_min_size)
    latent = encode_in_tiles(tiny, torch.rand(1, 3, 96, 96), 64)
    decode_in_tiles(tiny, latent, 64)
    after = (tiny.vae.use_tiling, tiny.vae.tile_sample_min_size, tiny.vae.tile_latent_min_size)
    assert after == before
