"""Upscaling as a whole, with a tiny random model: sizes, determinism, order of the steps."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import pyvips
import torch

from runtime.images.image_io import read_image
from runtime.images.resizing import resize
from runtime.pipeline import Pipeline
from runtime.upscale import upscale, upscale_file
from schemas.errors import ImageError
from tests.runtime.likeness import likeness
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

    monkeypatch.setattr(Pipeline, "sample", property(lambda _: echo))
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
