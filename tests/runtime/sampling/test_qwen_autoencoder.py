"""Qwen-Image's autoencoder in two dimensions against diffusers' own of videos, given one frame."""

import json

import pytest
import torch
from diffusers import AutoencoderKLQwenImage
from safetensors.torch import save_file

from artifacts.autoencoder.files import CONFIG, WEIGHTS, open_autoencoder
from artifacts.autoencoder.qwen import QwenAutoencoderConfig, qwen_tensor_shapes
from runtime.load import load_vae
from runtime.pipeline import vae_factor
from runtime.sampling.qwen_autoencoder import empty_qwen_autoencoder
from schemas.errors import CheckpointError

CPU = torch.device("cpu")
SIZES = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 1}
NORM = {"latents_mean": [0.3, -0.7, 1.1, 0.0], "latents_std": [2.0, 0.5, 1.5, 3.0]}
PUBLISHED = QwenAutoencoderConfig(
    base_dim=96,
    z_dim=16,
    dim_mult=(1, 2, 4, 4),
    num_res_blocks=2,
    latents_mean=(0.0,) * 16,
    latents_std=(1.0,) * 16,
)


@pytest.fixture(scope="module")
def of_videos():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKLQwenImage(**SIZES, **NORM).eval().requires_grad_(False)
        for name, parameter in vae.named_parameters():
            if name.endswith("gamma"):
                parameter.uniform_(0.5, 1.5)
    return vae


@pytest.fixture(scope="module")
def folder(of_videos, tmp_path_factory):
    """What a single frame meets of the video's weights: the last slice in time."""
    folder = tmp_path_factory.mktemp("vae")
    state = {}
    for name, tensor in of_videos.state_dict().items():
        if "time_conv" in name:
            continue
        if name.endswith("gamma"):
            state[name] = tensor.flatten()[:, None, None].clone()
        else:
            state[name] = (tensor[:, :, -1] if tensor.ndim == 5 else tensor).clone()
    save_file(state, folder / WEIGHTS)
    write_config(folder)
    return folder


def write_config(folder, **changes):
    notes = {"_class_name": "AutoencoderKLQwenImage2D", "_diffusers_version": "0.35"}
    content = {**notes, **SIZES, **NORM, "attn_scales": [], "dropout": 0.0, **changes}
    content["temperal_downsample"] = [False, True, True]
    (folder / CONFIG).write_text(json.dumps(content))


def picture(height, width):
    return 2 * torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(2)) - 1


def test_encodes_and_decodes_as_the_videos_does_one_frame(of_videos, folder):
    vae = load_vae(folder, CPU, latent_channels=4)
    mean, deviation = (torch.tensor(NORM[k])[:, None, None] for k in NORM)
    with torch.inference_mode():
        frame = picture(24, 40)
        expected = of_videos.encode(frame[:, :, None]).latent_dist.mode()[:, :, 0]
        latent = vae.encode(frame).latent_dist.mode()
        torch.testing.assert_close(latent, (expected - mean) / deviation, rtol=1e-4, atol=1e-5)
        shown = of_videos.decode(expected[:, :, None]).sample[:, :, 0]
        got = vae.decode(latent).sample
        torch.testing.assert_close(got.clip(-1, 1), shown, rtol=1e-4, atol=1e-5)
    assert (vae_factor(vae), vae.config.scaling_factor, vae.config.shift_factor) == (8, 1.0, None)
    assert tuple(latent.shape) == (1, 4, 3, 5)
    assert float(got.std()) > 0.01


def test_tiles_are_diffusers(folder):
    vae = load_vae(folder, CPU)
    vae.enable_tiling()
    vae.tile_sample_min_size, vae.tile_latent_min_size = 32, 4
    with torch.inference_mode():
        latent = vae.encode(picture(48, 64)).latent_dist.mode()
        assert tuple(latent.shape) == (1, 4, 6, 8)
        assert tuple(vae.decode(latent).sample.shape) == (1, 3, 48, 64)


@pytest.mark.parametrize("config", [PUBLISHED, QwenAutoencoderConfig(**SIZES, **NORM)])
def test_shapes_are_the_networks(config):
    state = {n: tuple(t.shape) for n, t in empty_qwen_autoencoder(config).state_dict().items()}
    assert qwen_tensor_shapes(config) == state


def test_the_factor_is_read_without_weights(folder):
    assert open_autoencoder(folder, error=CheckpointError).config.factor == 8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"latents_mean": [0.0]}, "latents_mean has 1 values for 4"),
        ({"latents_std": [1.0, 0.0, 1.0, 1.0]}, "latents_std"),
        ({"attn_scales": [0.5]}, "attn_scales"),
        ({"dim_mult": [1, 2, 3, 4], "base_dim": 7}, "twice some number"),
        ({"num_res_blocks": 2}, "lacks"),
        ({"z_dim": 3, "latents_mean": [0.0] * 3, "latents_std": [1.0] * 3}, "z_dim|must be floats"),
        ({"_class_name": ["x"]}, "an autoencoder of class"),
        ({"_class_name": "AutoencoderKLWan"}, "an autoencoder of class 'AutoencoderKLWan'"),
    ],
)
def test_configurations_that_do_not_fit(folder, tmp_path, changes, said):
    (tmp_path / WEIGHTS).symlink_to(folder / WEIGHTS)
    write_config(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=said):
        open_autoencoder(tmp_path, error=CheckpointError)


def test_another_networks_autoencoder(folder):
    with pytest.raises(CheckpointError, match="latent_channels is 4"):
        load_vae(folder, CPU, latent_channels=16)
