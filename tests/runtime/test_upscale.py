"""Upscaling as a whole, with a tiny random model: sizes, determinism, order of the steps."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import pyvips
import torch

from runtime import upscale as module
from runtime.images.image_io import read_image
from runtime.upscale import (
    decode,
    encode,
    is_out_of_memory,
    pad_to_multiple,
    resize,
    upscale,
    upscale_file,
    with_smaller_tiles,
    working_size,
)
from schemas.errors import ImageError, ResourceError
from tests.runtime.tiny_pipeline import make_tiny_pipeline


@pytest.fixture(scope="module")
def pipeline():
    return make_tiny_pipeline()


@pytest.fixture(scope="module")
def photo():
    from skimage import data

    pixels = np.ascontiguousarray(data.chelsea()[40:240:8, 100:340:8]).astype(np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]  # [1, 3, 25, 30]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 5), (17, 33), (64, 50)])
def test_result_is_exactly_four_times_the_input(pipeline, size):
    rgb = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    result = upscale(pipeline, rgb, pipeline.sampling)
    assert result.shape == (1, 3, 4 * size[0], 4 * size[1])
    assert result.dtype == torch.float32
    assert 0 <= result.min() <= result.max() <= 1


def test_same_seed_same_image_other_seed_another(pipeline, photo):
    first = upscale(pipeline, photo, pipeline.sampling)
    assert torch.equal(first, upscale(pipeline, photo, pipeline.sampling))
    other = upscale(pipeline, photo, replace(pipeline.sampling, seed=1))
    assert not torch.equal(first, other)


def likeness(a, b):
    """Correlation of all values, -1 ... 1."""
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]


def moved(pipeline, device, dtype):
    """The same pipeline elsewhere; deep copies, because ``to`` moves a module in place."""
    return replace(
        pipeline,
        network=copy.deepcopy(pipeline.network).to(device, dtype),
        vae=copy.deepcopy(pipeline.vae).to(device),
        prompts=pipeline.prompts.to(device, dtype),
        device=device,
        dtype=dtype,
    )


def test_bfloat16_network_gives_nearly_the_same_image(pipeline, photo):
    """bfloat16 keeps 8 bits of every product: a percent or so of the image's contrast."""
    narrow = moved(pipeline, torch.device("cpu"), torch.bfloat16)
    expected = upscale(pipeline, photo, pipeline.sampling)
    assert likeness(upscale(narrow, photo, pipeline.sampling), expected) > 0.999


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_gives_the_image_of_the_cpu(pipeline, photo):
    """One seed, one image, whatever the device: the noise is drawn on the CPU."""
    elsewhere = moved(pipeline, torch.device("cuda"), torch.float32)
    expected = upscale(pipeline, photo, pipeline.sampling)
    assert likeness(upscale(elsewhere, photo, pipeline.sampling), expected) > 0.999


def test_the_input_decides_the_result(pipeline, photo):
    """The control latent really reaches the network: without it, noise and prompts are the same."""
    settings = replace(pipeline.sampling, color_fix="none")
    first = upscale(pipeline, photo, settings)
    assert (first - upscale(pipeline, 1 - photo, settings)).abs().mean() > 1e-3


def test_adain_gives_the_colours_of_the_enlarged_input(pipeline, photo):
    result = upscale(pipeline, photo, pipeline.sampling)
    reference = resize(photo, result.shape[-2:])
    # Clamping to 0 ... 1 after the correction moves the means a little.
    torch.testing.assert_close(result.mean((2, 3)), reference.mean((2, 3)), rtol=0, atol=0.03)
    plain = upscale(pipeline, photo, replace(pipeline.sampling, color_fix="none"))
    assert (plain.mean((2, 3)) - reference.mean((2, 3))).abs().max() > 0.05


def test_every_step_of_the_procedure_in_its_order(pipeline, photo, monkeypatch):
    """With a sampler that returns its control, the result is the VAE's round trip of the input."""
    seen = {}

    def echo(_network, control, _prompts, settings, **_):
        seen["control"] = control
        return control

    monkeypatch.setattr(module, "sample", echo)
    settings = replace(pipeline.sampling, color_fix="none")
    result = upscale(pipeline, photo, settings)

    with torch.inference_mode():
        enlarged = resize(photo, (100, 120))
        padded = torch.nn.functional.pad(enlarged, (0, 0, 0, 4), mode="reflect")  # 104: 13 x 8
        vae = pipeline.vae
        vae.disable_tiling()
        latent = vae.encode(2 * padded - 1).latent_dist.mode()
        torch.testing.assert_close(seen["control"], (latent - 0.0609) * 1.5305)
        expected = (vae.decode(latent).sample / 2 + 0.5)[:, :, :100].clamp(0, 1)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


def test_small_images_are_raised_to_the_smallest_side_the_network_knows():
    assert working_size(400, 800, 512) == (512, 1024)
    assert working_size(600, 800, 512) == (600, 800)
    assert working_size(4, 4, 512) == (512, 512)
    # A strip is not blown up: 4 x 4000 would need 512 x 512,000.
    assert working_size(4, 4000, 512) == (4, 4000)
    assert working_size(4, 1024, 512) == (8, 2048)


@pytest.mark.parametrize(("size", "expected"), [((1, 1), (16, 16)), ((17, 40), (24, 40))])
def test_padding_reaches_the_multiple_and_keeps_the_image(size, expected):
    image = torch.rand(1, 3, *size)
    padded = pad_to_multiple(image, 8, at_least=16)
    assert padded.shape[-2:] == expected
    assert torch.equal(padded[..., : size[0], : size[1]], image)
    assert padded.std() > 0 or size == (1, 1)


def test_padding_mirrors_without_repeating_the_edge():
    image = torch.arange(6.0).view(1, 1, 1, 6)
    assert pad_to_multiple(image, 8, at_least=1)[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 4, 3]


def test_bicubic_is_that_of_image_editors():
    """One pixel on black, enlarged by 4: Keys' kernel with a = -0.5 at eighths of a pixel."""
    line = torch.zeros(1, 1, 1, 9)
    line[..., 4] = 0.5
    distance = ((torch.arange(36) + 0.5) / 4 - 4.5).abs()
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    kernel = torch.where(distance < 1, near, torch.where(distance < 2, far, 0))
    enlarged = resize(line, (1, 36))[0, 0, 0]
    torch.testing.assert_close(enlarged, (kernel / 2).clamp(0, 1), rtol=0, atol=1e-5)


def test_vae_multiplies_in_the_networks_bfloat16_and_in_nothing_narrower(pipeline):
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen = []
    hook = pipeline.vae.decoder.conv_in.register_forward_hook(lambda *call: seen.append(call[2]))
    wide, narrow, float16 = (
        decode(same, encode(same, image, 1024), 1024)
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
        for same in [replace(pipeline, dtype=dtype)]
    )
    hook.remove()
    assert [y.dtype for y in seen] == [torch.float32, torch.bfloat16, torch.float32]
    assert torch.equal(float16, wide)
    assert narrow.dtype == torch.float32
    assert not torch.equal(narrow, wide)
    # Eight bits in every factor of some ten convolutions one after the other.
    assert (narrow - wide).norm() < 0.03 * wide.norm()


def test_vae_in_tiles_is_near_the_vae_at_once(pipeline):
    """Group norms see one tile at a time, so the two differ; they must not differ in place.

    The image is an even texture, whose statistics are nearly the same in every tile.
    """
    noise = torch.rand(1, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    image = resize(noise, (96, 160))
    with torch.inference_mode():
        whole = encode(pipeline, image, 160)
        tiled = encode(pipeline, image, 64)
        assert tiled.shape == whole.shape == (1, 16, 24, 40)
        assert likeness(tiled, whole) > 0.9
        assert likeness(tiled.roll(1, dims=-1), whole) < 0.5  # a shift by one would be noticed
        at_once, in_tiles = decode(pipeline, whole, 160), decode(pipeline, whole, 64)
        assert in_tiles.shape == image.shape
        assert likeness(in_tiles, at_once) > 0.85


def test_memory_that_runs_out_is_answered_with_smaller_tiles(caplog):
    tried = []

    def run(tile):
        tried.append(tile)
        if tile > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tile

    assert with_smaller_tiles(run, 60, 16, 2, "sampling") == 16
    assert tried == [60, 30, 16]
    assert "tiles of 60; trying 30" in caplog.text


def test_memory_that_never_suffices_is_a_resource_error():
    def run(_tile):
        raise MemoryError

    with pytest.raises(ResourceError, match="even with tiles of 16"):
        with_smaller_tiles(run, 64, 16, 2, "sampling")
    # A start under the floor is not raised to it.
    with pytest.raises(ResourceError, match="even with tiles of 8"):
        with_smaller_tiles(run, 8, 16, 2, "sampling")


def test_other_errors_are_not_taken_for_missing_memory():
    def run(_tile):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        with_smaller_tiles(run, 64, 16, 2, "sampling")
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))


def test_the_cpu_allocator_really_says_what_is_looked_for():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_file_with_alpha_keeps_it_enlarged(pipeline, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 4), dtype=np.uint8)
    pyvips.Image.new_from_array(pixels).copy(interpretation="srgb").pngsave(str(tmp_path / "a.png"))
    report = upscale_file(pipeline, tmp_path / "a.png", tmp_path / "b.png", pipeline.sampling)
    assert (report.width, report.height, report.notes) == (36, 48, ())
    before, after = read_image(tmp_path / "a.png"), read_image(tmp_path / "b.png")
    expected = resize(before.alpha, (48, 36))
    torch.testing.assert_close(after.alpha, expected, rtol=0, atol=0.5 / 255 + 1e-6)


def test_result_too_large_for_its_format_is_refused_before_any_work(tmp_path):
    pyvips.Image.black(1, 4096).pngsave(str(tmp_path / "a.png"))
    with pytest.raises(ImageError, match="does not fit"):
        upscale_file(None, tmp_path / "a.png", tmp_path / "b.webp", None)
