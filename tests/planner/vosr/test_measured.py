"""What runs VOSR to decide: the probe of recipe `standard`, GPTQ's moments, a calibration."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.pack.reader import open_pack
from artifacts.vosr.layout import block_linears
from planner.build.base_model import find_base_model
from planner.calibrate.pipelines import base_digest, full_precision_pipeline
from planner.probe.adjoint import SampledImage
from planner.probe.image_probe import probe_image
from runtime.sampling.sampler import initial_noise
from runtime.upscale import encode_image, sample_latent
from tests.artifacts.vosr.make_vosr import TINY, random_state, write_folder
from tests.planner.run_qplan import assert_fails, run_qplan
from tests.runtime.vosr.make_base import make_base

OPTIONS = ("--target", "W4A4", "--global-rank", "2", "--local-rank", "1", "--device", "cpu")

SPREAD = 1e-3
"""Of the noise put on a layer's output: small enough for its effect to be linear."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    checkpoint = write_folder(folder / "VOSR_tiny_os", random_state())
    sampling = {"steps": 1, "guidance": 1.0, "shift": 1.0, "tile_latent": 8, "overlap_latent": 2}
    (checkpoint / "sampling.json").write_text(json.dumps({**sampling, "min_side_px": 64}))
    return checkpoint, make_base(folder / "base")


@pytest.fixture
def pipeline(models):
    checkpoint = open_checkpoint(models[0])
    base = find_base_model(checkpoint, models[1])
    return full_precision_pipeline(checkpoint, None, base, torch.device("cpu"), torch.float32)


def rgb():
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def test_the_probes_loop_is_the_samplers(pipeline):
    encoded = encode_image(pipeline, rgb(), pipeline.sampling)
    noise = initial_noise(tuple(encoded.control.shape), 0)
    image = SampledImage(
        pipeline.network, encoded.control, encoded.condition, pipeline.sampling, noise
    )
    expected = sample_latent(
        pipeline, encoded.control, pipeline.sampling, condition=encoded.condition
    )
    torch.testing.assert_close(image.run().latents[-1], expected)


def test_the_probe_predicts_what_noise_on_a_layers_output_does(pipeline):
    """Against many draws of small noise: the mean squared change of the final latent."""
    layers = list(block_linears(TINY))
    with torch.inference_mode(mode=False):
        found = probe_image(pipeline, layers, rgb(), cotangents=64, seed=0)
    encoded = encode_image(pipeline, rgb(), pipeline.sampling)

    def sampled():
        return sample_latent(
            pipeline, encoded.control, pipeline.sampling, condition=encoded.condition
        )

    exact = sampled()
    for name in ("blocks.0.cross_attn.v_linear", "blocks.1.mlp.w3"):
        generator = torch.Generator().manual_seed(1)
        layer = pipeline.network.get_submodule(name)

        def disturbed(_module, _inputs, output, generator=generator):
            return output + SPREAD * torch.randn(output.shape, generator=generator)

        handle = layer.register_forward_hook(disturbed)
        changes = [float((sampled() - exact).square().mean()) for _ in range(64)]
        handle.remove()
        predicted = float(found.output[layers.index(name), 0])
        assert np.mean(changes) / SPREAD**2 == pytest.approx(predicted, rel=0.2)


def test_standard_is_the_default_where_the_base_has_an_encoder(models, tmp_path):
    checkpoint, base = models
    pack = tmp_path / "standard.qpack"
    done = run_qplan("build", checkpoint, *OPTIONS, "--base", base, "-o", pack)
    assert done.exit_code == 0, done.output
    assert "the pack will hold no image encoder; upscaling will ask for --base" in done.stderr
    manifest = open_pack(pack).manifest
    assert manifest.recipe.name == "standard"
    assert manifest.recipe.settings["weight_rounding"] == "gptq"
    assert manifest.modulation is None
    assert manifest.reached.weight_bits <= 4
    assert len({layer.weight_bits for layer in manifest.layers.values()}) > 1
    assert all(layer.error_share is not None for layer in manifest.layers.values())


def test_a_calibration(models, tmp_path):
    checkpoint, base = models
    (tmp_path / "photos").mkdir()
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{seed}.png")
    pack = tmp_path / "calibrated.qpack"
    done = run_qplan(
        "build", checkpoint, *OPTIONS, "--base", base, "--recipe", "q-dit4sr", "--vatmp",
        "--calib", tmp_path / "photos", "--calib-images", "2", "-o", pack,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    manifest = open_pack(pack).manifest
    assert manifest.calibration is not None
    assert manifest.calibration.images == 2


def test_several_steps_are_not_measured(models, tmp_path):
    checkpoint, base = models
    pack = tmp_path / "x.qpack"
    done = run_qplan(
        "build", checkpoint, *OPTIONS, "--base", base, "--recipe", "standard", "--steps", "2",
        "-o", pack,
    )  # fmt: skip
    assert_fails(done, 2, "is measured in one step, not 2")
    assert not pack.exists()


def test_another_encoder_is_another_measurement(models, tmp_path):
    checkpoint = open_checkpoint(models[0])
    first = base_digest(find_base_model(checkpoint, models[1]))
    other = make_base(tmp_path / "base")
    assert base_digest(find_base_model(checkpoint, other)) == first
    config = other / "image_encoder" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert base_digest(find_base_model(checkpoint, other)) != first


def test_it_does_not_learn(models, tmp_path):
    checkpoint, base = models
    pack = tmp_path / "p.qpack"
    done = run_qplan(
        "build", checkpoint, *OPTIONS, "--recipe", "q-dit4sr", "--base", base, "-o", pack
    )
    assert done.exit_code == 0, done.output
    (tmp_path / "photos").mkdir()
    done = run_qplan(
        "learn", pack, "--checkpoint", checkpoint, "--calib", tmp_path / "photos",
        "-o", tmp_path / "learned.qpack",
    )  # fmt: skip
    assert_fails(done, 2, "VOSR cannot learn: it reads features of the picture")
