"""Large images by strips: the same pictures as whole ones, and no seams."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import strips, upscale
from runtime.images.alpha import resize_visible
from runtime.images.pixel_form import PixelForm
from runtime.images.resizing import SCALE, pad_to_multiple, resize
from runtime.loader import load_pipeline
from runtime.strips import StripedImage, in_strips
from tests.runtime.tiny_pipeline import make_tiny_pipeline

MODEL = Path(__file__).parents[2] / "artifacts" / "demo" / "dit4sr-mini"
PLAIN = PixelForm(gray=False, alpha=False, flattened=False, deep=True, notes=())


@pytest.fixture(scope="module")
def pipeline():
    return make_tiny_pipeline()


@pytest.fixture
def thin(monkeypatch):
    """Every image is cut, into strips of a few rows."""
    monkeypatch.setattr(strips, "STRIP_FROM_PIXELS", 0)
    monkeypatch.setattr(strips, "STRIP_PX", 64)
    monkeypatch.setattr(strips, "MARGIN_PX", 64)


@pytest.fixture
def local_autoencoder(monkeypatch, pipeline):
    """One that looks at nothing but the pixels under a latent pixel."""
    factor = pipeline.vae_factor
    channels = pipeline.vae.config.latent_channels

    def encode(_pipeline, image):
        return F.avg_pool2d(image, factor).repeat(1, channels, 1, 1)[:, :channels]

    def decode(_pipeline, latent):
        return F.interpolate(latent[:, :3].float(), scale_factor=factor).sigmoid()

    for module in (strips, upscale):
        monkeypatch.setattr(module, "encode", encode)
        monkeypatch.setattr(module, "decode", decode)


def picture(height, width, *, channels=3, seed=0):
    return torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_rows_are_those_of_the_whole(data):
    height, width = data.draw(st.integers(12, 40)), data.draw(st.integers(1, 9))
    rgb = picture(height, width)
    alpha = picture(height, width, channels=1, seed=1) if data.draw(st.booleans()) else None
    unit = data.draw(st.sampled_from([8, 16]))
    image = StripedImage(rgb, alpha, unit)
    size = (SCALE * height, SCALE * width)
    whole = resize_visible(rgb, alpha, size)
    top = data.draw(st.integers(0, size[0] - 1))
    bottom = data.draw(st.integers(top + 1, size[0]))
    colours, opacity = image.rows(top, bottom)
    torch.testing.assert_close(colours, whole[..., top:bottom, :], rtol=0, atol=1e-4)
    if alpha is not None:
        torch.testing.assert_close(opacity, resize(alpha, size)[..., top:bottom, :])
    padded = pad_to_multiple(whole, unit, at_least=0)
    assert image.padded_height == padded.shape[-2]
    top = data.draw(st.integers(0, size[0] - unit))
    torch.testing.assert_close(
        image.padded_rows(top, image.padded_height), padded[..., top:, :], rtol=0, atol=1e-4
    )


@pytest.mark.usefixtures("thin", "local_autoencoder")
@pytest.mark.parametrize("scale", [4, 2, 1])
@pytest.mark.parametrize("color_fix", ["wavelet", "none"])
@pytest.mark.parametrize("transparent", [False, True])
def test_a_cut_image_is_the_whole_one(pipeline, scale, color_fix, transparent):
    rgb = picture(63, 21)
    alpha = picture(63, 21, channels=1, seed=1) if transparent else None
    chosen = replace(pipeline.sampling, color_fix=color_fix, steps=1, min_side_px=1)
    whole = upscale.upscale(pipeline, rgb, chosen, alpha=alpha, scale=scale)
    form = replace(PLAIN, alpha=transparent)
    cut = upscale.upscale_in_strips(pipeline, rgb, chosen, form, alpha=alpha, scale=scale)
    expected = form.codes(whole, None if alpha is None else resize(alpha, whole.shape[-2:]))
    assert cut.shape == expected.shape
    assert np.abs(cut.astype(int) - expected).max() <= 65535 * 2e-4


def test_what_is_cut(pipeline):
    chosen = replace(pipeline.sampling, color_fix="wavelet", min_side_px=512)
    assert in_strips(2250, 3000, chosen)
    assert not in_strips(512, 512, chosen)
    assert not in_strips(2250, 3000, replace(chosen, color_fix="adain"))
    # Seen larger than four times:
    assert not in_strips(900, 1200, replace(chosen, min_side_px=4096))


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize(
    ("bands", "kind", "suffix"), [(3, "uchar", ".png"), (2, "ushort", ".tif"), (4, "uchar", ".jpg")]
)
def test_files_keep_their_kind(pipeline, tmp_path, bands, kind, suffix):
    rng = np.random.default_rng(0)
    dtype = {"uchar": np.uint8, "ushort": np.uint16}[kind]
    pixels = rng.integers(np.iinfo(dtype).max, size=(40, 24, bands), dtype=dtype)
    image = pyvips.Image.new_from_array(pixels)
    names = {(2, "ushort"): "grey16"}
    image = image.copy(interpretation=names.get((bands, kind), "srgb"))
    image.write_to_file(str(tmp_path / "a.png"))
    chosen = replace(pipeline.sampling, steps=1, min_side_px=1, color_fix="wavelet")
    out = tmp_path / f"b{suffix}"
    report = upscale.upscale_file(pipeline, tmp_path / "a.png", out, chosen)
    result = pyvips.Image.new_from_file(str(out))
    assert (result.width, result.height) == (report.width, report.height) == (96, 160)
    assert result.bands == (3 if suffix == ".jpg" else bands)
    assert result.format == ("uchar" if suffix == ".jpg" else kind)


def test_seams_are_not_seen(monkeypatch):
    """The autoencoder looks farther than the margin; what is beyond it hardly matters."""
    from skimage.data import astronaut

    pixels = np.ascontiguousarray(astronaut()[150:262, 180:228]).astype(np.float32) / 255
    rgb = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    model = load_pipeline(pack=None, full_precision=MODEL, device="cpu", dtype="float32")
    chosen = replace(model.sampling, steps=1, color_fix="wavelet")
    whole = upscale.upscale(model, rgb, chosen)
    monkeypatch.setattr(strips, "STRIP_PX", 192)
    cut = upscale.upscale_in_strips(model, rgb, chosen, PLAIN)
    difference = np.abs(cut.astype(float) - PLAIN.codes(whole, None)) / 65535
    assert difference.mean() < 1 / 255
    at_seams = difference[[n + d for n in (192, 384) for d in (-2, -1, 0, 1)]]
    assert at_seams.mean() < 1 / 255
