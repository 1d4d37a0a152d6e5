"""The autoencoder's start, its anchors, and a few steps of training."""

import pytest
import torch
from diffusers import AutoencoderKL

from training import autoencoder, evaluate_autoencoder
from training.autoencoder import (
    AutoencoderRun,
    load_autoencoder,
    loss,
    new_autoencoder,
    train_autoencoder,
)
from training.autoencoder_start import (
    ANCHOR,
    block_transform,
    keep_anchors,
    start_as_transform_code,
)
from training.decoder import DecoderRun, train_decoder
from training.schedule import WarmupStableDecay


@pytest.fixture
def started(crops):
    torch.manual_seed(0)
    vae = new_autoencoder()
    transform = block_transform(crops.batch(16, 64, 0), kept=11, latents=16)
    start_as_transform_code(vae, transform)
    return vae, transform


def test_its_size_is_within_the_budget():
    assert sum(p.numel() for p in new_autoencoder().parameters()) <= 1_500_000


def test_the_transform_is_orthonormal(started):
    _, transform = started
    for filters in (transform.halving, transform.coding):
        rows = filters.flatten(1)
        assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-5)


@torch.no_grad()
def test_an_untrained_encoder_computes_the_transform(started, crops):
    vae, transform = started
    images = crops.batch(2, 64, 1)
    halves = torch.nn.functional.conv2d(images, transform.halving, stride=2)
    code = torch.nn.functional.conv2d(halves, transform.coding, stride=2)
    code = code * transform.gains[:, None, None]
    latent = vae.encode(images).latent_dist.mean
    # The norm is a fixed scale only nearly.
    error = (latent - code).square().mean() / code.square().mean()
    assert error < 0.05


@torch.no_grad()
def test_an_untrained_decoder_paints_blocks_in_their_colours(started, crops):
    vae, _ = started
    images = crops.batch(2, 64, 1)
    decoded = vae.decode(vae.encode(images).latent_dist.mean).sample
    blocks = torch.nn.functional.avg_pool2d(images, 4)
    found = torch.nn.functional.avg_pool2d(decoded, 4)
    assert (found - blocks).square().mean().sqrt() < 0.15


def test_training_moves_everything_but_the_anchors(started, crops):
    vae, _ = started
    keep_anchors(vae)
    loss(vae, crops.batch(1, 64, 2)).backward()
    convolution = vae.decoder.up_blocks[0].resnets[0].conv1
    assert convolution.weight.grad[:-2, :-2].abs().sum() == 0  # its branch starts closed
    opened = vae.decoder.up_blocks[0].resnets[0].conv2
    assert opened.weight.grad[:-2, :-2].abs().sum() > 0
    assert opened.weight.grad[:, -2:].abs().sum() == 0
    assert vae.decoder.conv_in.bias.grad[-2:].abs().sum() == 0
    assert vae.decoder.conv_in.bias[-2:].tolist() == [ANCHOR, -ANCHOR]


def test_a_short_run_writes_a_folder_with_unit_latents(tmp_path, crops, monkeypatch):
    monkeypatch.setattr(autoencoder, "CALIBRATION_CROPS", 16)
    run = AutoencoderRun(steps=2, decay=1, pixels=64 * 64)
    assert train_autoencoder(crops, tmp_path, run, seed=0, device=torch.device("cpu"))
    vae = AutoencoderKL.from_pretrained(tmp_path / "vae", low_cpu_mem_usage=False)
    latents = vae.encode(crops.batch(16, 64, 5)).latent_dist
    scaled = (latents.mean - vae.config.shift_factor) * vae.config.scaling_factor
    assert scaled.std().item() == pytest.approx(1, rel=0.3)
    assert latents.std.mean().item() * vae.config.scaling_factor == pytest.approx(0.03, rel=0.01)


def test_training_the_decoder_on_leaves_the_encoder_as_it_is(tmp_path, crops, started):
    vae, _ = started
    vae.save_pretrained(tmp_path / "vae")
    run = DecoderRun(WarmupStableDecay(2, decay=1), pixels=128**2)
    assert train_decoder(crops, tmp_path, run, device=torch.device("cpu"))
    after = load_autoencoder(tmp_path, torch.device("cpu")).state_dict()
    moved = {
        name for name, tensor in vae.state_dict().items() if not torch.equal(tensor, after[name])
    }
    assert moved
    assert all(name.startswith("decoder.") for name in moved)


def test_a_folder_without_an_autoencoder_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["evaluate_autoencoder", "--vae", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as stop:
        evaluate_autoencoder.main()
    assert stop.value.code == 2
    assert "none is no autoencoder's folder: it has no config.json" in capsys.readouterr().err
