"""DINOv2's features: which block, which tokens, how the picture is prepared, what is refused."""

import json
import sys

import numpy as np
import pytest
import torch
from transformers import Dinov2Model

from artifacts.family import IMAGE_ENCODER_FOLDER as FOLDER
from runtime.vosr.image_encoder import load_image_encoder, prepare
from schemas.errors import CheckpointError, UsageError
from tests.artifacts.vosr.make_vosr import TINY
from tests.runtime.vosr.make_base import make_encoder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("base"))


@pytest.fixture
def picture():
    return torch.rand(1, 3, 40, 64, generator=torch.Generator().manual_seed(4))


def outputs_of_blocks(base, pixels):
    """What every block of the encoder gives, block by block, and the norm of the last."""
    model = Dinov2Model.from_pretrained(base / FOLDER)
    found = []
    model.eval()
    for layer in model.encoder.layer:
        layer.register_forward_hook(
            lambda _m, _in, out: found.append(out[0] if isinstance(out, tuple) else out)
        )
    with torch.no_grad():
        model(pixels)
    return [x.reshape(1, -1, 24) for x in found], model.layernorm


@pytest.mark.parametrize("block", [0, 1, 2])
def test_features_are_a_blocks_patches(base, picture, block):
    config = TINY.model_copy(update={"layer_dinov2b_list": (block, 0)})
    features = load_image_encoder([base / "nothing", base], config, CPU)(picture)
    assert features.shape == (config.feature_tokens, 24) == (16, 24)
    blocks, norm = outputs_of_blocks(base, prepare(picture, 56))
    expected = blocks[block][0, 1:]
    expected = norm(expected) if block == 2 else expected
    torch.testing.assert_close(features, expected)
    others = [x[0, 1:] for index, x in enumerate(blocks) if index != block]
    assert not any(torch.allclose(features, other, atol=0.1) for other in others)


def test_the_picture_becomes_a_normed_square(picture):
    pixels = prepare(picture, 56)
    assert pixels.shape == (1, 3, 56, 56)
    white = prepare(torch.ones(1, 3, 5, 9), 28)
    expected = (1 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(white[0, :, 3, 7].numpy(), expected, rtol=1e-6)
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1  # bicubic interpolation overshoots here
    shown = prepare(edge, 56) * torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    shown = shown + torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    assert -1e-6 <= float(shown.min()) <= float(shown.max()) <= 1 + 1e-6


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 32}, "features of 32 channels, but the network reads 24"),
        ({"patch_size": 7}, "features of 7 px a patch, but the network reads 14"),
        ({"num_hidden_layers": 1}, "1 blocks, but the network reads the output of block 1"),
    ],
)
def test_another_encoder(tmp_path, changes, said):
    make_encoder(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=said):
        load_image_encoder([tmp_path], TINY, CPU)


def test_no_encoder(tmp_path):
    with pytest.raises(UsageError, match="no image encoder") as raised:
        load_image_encoder([tmp_path], TINY, CPU)
    assert "image_encoder/" in raised.value.hint


def test_another_model_or_a_damaged_one(base, tmp_path):
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="image_encoder"):
        load_image_encoder([tmp_path], TINY, CPU)
    make_encoder(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="image_encoder cannot be loaded"):
        load_image_encoder([tmp_path], TINY, CPU)


def test_without_transformers(base, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match="need the package transformers") as raised:
        load_image_encoder([base], TINY, CPU)
    assert raised.value.hint == "pip install 'qdit4sr[vosr]'"
