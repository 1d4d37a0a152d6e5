"""The network that recipes are judged on beside the bundled one."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.quality import __main__ as command
from benchmarks.quality.measure import Sampling
from benchmarks.quality.packs import PackMaker
from runtime.load import load_full_precision
from training.networks import NARROW

FOLDER = Path("benchmarks/networks/dit4sr-narrow")
ONE_STEP = Path("benchmarks/networks/dit4sr-mini-onestep")


def test_the_second_network_is_as_described_and_small():
    pipeline = load_full_precision(FOLDER, device=torch.device("cpu"), dtype=torch.float32)
    assert pipeline.architecture.config == NARROW.config
    own = [path for path in FOLDER.rglob("*") if path.is_file() and "vae" not in path.parts]
    assert sum(path.stat().st_size for path in own) <= 8e6


VAE = {FOLDER: Path("training/autoencoder_weights"), ONE_STEP: command.MODEL / "vae"}


@pytest.mark.parametrize("folder", VAE)
def test_networks_share_one_encoder(folder):
    """So their latents can be compared; the bundled model's decoder is trained on for its own."""
    assert (folder / "vae").resolve() == VAE[folder].resolve()
    name = "vae/diffusion_pytorch_model.safetensors"
    shared, bundled = (load_file(model / name) for model in (folder, command.MODEL))
    assert shared.keys() == bundled.keys()
    encoder = [key for key in shared if key.startswith("encoder.")]
    assert encoder
    assert all(torch.equal(shared[key], bundled[key]) for key in encoder)


def test_what_was_measured_on_one_network_is_not_taken_for_another(tmp_path):
    keys = {
        PackMaker(model, tmp_path, steps=steps, guidance=1.0)._measured_on
        for model in (command.MODEL, FOLDER)
        for steps in (2, 8)
    }
    assert len(keys) == 4


def test_results_of_the_second_network_are_kept_apart():
    keys = [
        Sampling(
            model, crops=1, crop_px=128, seeds=1, steps=2, guidance=1.0, pictures=False
        ).key_parts()
        for model in (command.MODEL, FOLDER)
    ]
    assert keys[0] != keys[1]
