"""The bundled model through the real commands: build, inspect, verify, upscale."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from artifacts.checkpoint.reader import open_checkpoint
from artifacts.codec.gaussian_quantizer import dequantize_rows, quantize_rows
from artifacts.pack.reader import open_pack
from benchmarks.degradation import SCALE, Degradation
from benchmarks.photos import held_out_photos
from runtime.backends.reference import ReferenceLinear
from runtime.load import network_from_checkpoint, network_from_pack

MODEL = Path(__file__).parents[2] / "artifacts" / "demo" / "dit4sr-mini"
DECODER_BEFORE = Path(__file__).parents[2] / "training" / "autoencoder_weights"
OPTIONS = ("--recipe", "q-dit4sr", "--global-rank", "4", "--local-rank", "2")


def run(module, *arguments):
    """Run ``qplan`` or ``qrun`` as a command of its own; returns its stdout."""
    code = f"from {module}.cli.main import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "mini.qpack"
    run("planner", "build", MODEL, "--target", "W4A4", *OPTIONS, "-o", path)
    return path


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A degraded crop of a held-out photo [40, 56], and the truth [160, 224]."""
    truth = held_out_photos()["chelsea"][60:220, 100:324]
    small = Degradation.draw(np.random.default_rng(5)).apply(truth)
    path = tmp_path_factory.mktemp("photo") / "cat.png"
    Image.fromarray(np.uint8(np.rint(small * 255))).save(path)
    return path, truth


def read(path):
    return np.asarray(Image.open(path), np.float64) / 255


def psnr_db(a, b):
    return -10 * math.log10(np.mean((a - b) ** 2))


def test_model_is_small_enough_to_bundle():
    sizes = [file.stat().st_size for file in MODEL.rglob("*") if file.is_file()]
    assert sum(sizes) < 24_000_000


def test_inspect_and_verify_say_what_was_built(pack):
    facts = json.loads(run("planner", "inspect", pack, "--json"))
    assert facts["reached"]["weight_bits"] <= 4
    assert all(layer["error_db"] > 10 for layer in facts["layers"].values())
    assert facts["share_of_source"] < 0.5
    table = run("planner", "inspect", pack, "--layer", r"blocks\.0\.attn\.to_q$")
    assert "transformer_blocks.0.attn.to_q" in table
    assert "dB" in table
    assert ": ok, " in run("planner", "verify", pack)


def test_the_same_build_gives_the_same_bytes(pack, tmp_path):
    again = tmp_path / "again.qpack"
    run("planner", "build", MODEL, "--target", "W4A4", *OPTIONS, "-o", again)
    names = sorted(p.relative_to(pack) for p in pack.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    for name in names:
        assert (pack / name).read_bytes() == (again / name).read_bytes(), name


def test_decoding_error_of_the_manifest_is_the_real_one(pack):
    opened, source = open_pack(pack), open_checkpoint(MODEL)
    for name in opened.layer_names:
        weight = source.tensor(f"{name}.weight").double()
        noise = opened.layer(name).decode() - weight
        error_db = 10 * math.log10(float(weight.square().sum() / noise.square().sum()))
        assert error_db == pytest.approx(opened.manifest.layers[name].error_db, abs=0.01)


def test_integer_path_equals_the_reference_decoder_times_quantized_activations(pack):
    opened = open_pack(pack)
    for name in opened.layer_names:
        weight = opened.layer(name)
        x = torch.randn(11, weight.in_features, generator=torch.Generator().manual_seed(0))
        z = weight.rotation.apply(x, weight.signs)
        codes, scale = quantize_rows(z, 4)
        expected = dequantize_rows(codes, scale, 4).double() @ weight.residual(torch.float64).T
        expected += z.double() @ weight.low_rank(torch.float64).T + weight.bias.double()
        actual = ReferenceLinear(weight, "gaussian")(x, 4).double()
        # Float32 sums of at most 768 terms; see tests/runtime/backends/test_reference.py.
        assert float((actual - expected).norm() / expected.norm()) < 1e-5, name


def test_upscale_makes_a_picture_near_the_unquantized_one(pack, photo, tmp_path):
    source, truth = photo
    quantized, full = tmp_path / "w4a4.png", tmp_path / "full.png"
    run("runtime", "upscale", source, "--pack", pack, "-o", quantized, "--steps", 4)
    run(
        "runtime", "upscale", source, "--full-precision", MODEL, "--pack", pack, "-o", full,
        "--steps", 4,
    )  # fmt: skip
    images = {"quantized": read(quantized), "full": read(full)}
    height, width = read(source).shape[:2]
    assert images["full"].shape == truth.shape == (SCALE * height, SCALE * width, 3)
    # 25.4 and 24.9. A network that had learnt nothing, or a broken pack, ends near 10 dB.
    assert psnr_db(images["full"], truth) > 24
    assert psnr_db(images["quantized"], truth) > 24
    # 34.5. The rows of one feed-forward weight shifted by one give 19.6 to 29.4, one modulation
    # without its factors 14.7 to 31.8, all tried; a layer whose error shows less is for
    # `test_every_layer_of_the_running_network_is_the_decoded_one`.
    assert psnr_db(images["quantized"], images["full"]) > 33


def test_a_softer_decoder_shows_less_of_the_same_error(photo, tmp_path):
    """The network with the decoder that was not trained on for its latents."""
    softer, pack = tmp_path / "softer", tmp_path / "softer.qpack"
    shutil.copytree(MODEL, softer, ignore=shutil.ignore_patterns("vae"))
    shutil.copytree(DECODER_BEFORE, softer / "vae")
    run("planner", "build", softer, "--target", "W4A4", *OPTIONS, "-o", pack)
    pictures = []
    for name, options in (("w4a4.png", ()), ("full.png", ("--full-precision", softer))):
        output = tmp_path / name
        run(
            "runtime", "upscale", photo[0], *options, "--pack", pack, "-o", output, "--steps", 4,
        )  # fmt: skip
        pictures.append(read(output))
    # 38.4. The rows of one feed-forward weight shifted by one give 33.1, one modulation without its
    # factors 29.0.
    assert psnr_db(*pictures) > 37


def test_every_layer_of_the_running_network_is_the_decoded_one(pack):
    """With unquantized activations; the integer path is compared layer by layer above."""
    opened, device = open_pack(pack), torch.device("cpu")
    network = network_from_pack(opened, device=device, dtype=torch.float32, backend="reference")
    decoded = network_from_checkpoint(
        open_checkpoint(MODEL), opened.variant, device=device, dtype=torch.float32
    )
    for name in opened.layer_names:
        layer, weight = decoded.get_submodule(name), opened.layer(name)
        layer.weight.copy_(weight.decode())
        layer.bias.copy_(weight.bias)
    generator = torch.Generator().manual_seed(0)
    noisy, control = torch.randn(2, 2, opened.config.in_channels, 16, 24, generator=generator)
    prompts = opened.prompts()
    embeds, pooled = (
        torch.stack([prompts[f"{prompt}.{part}"].float() for prompt in ("negative", "positive")])
        for part in ("embeds", "pooled")
    )
    inputs = (noisy, control, embeds, pooled, torch.full((2,), 600.0))
    with torch.inference_mode():
        found, expected = network(*inputs), decoded(*inputs)
    # Float32 gives 5.9e-7. The least that any layer costs is 3.4e-5, without its bias, and 3.0e-3
    # with the rows of its codes shifted by one.
    assert float((found - expected).norm() / expected.norm()) < 2e-6


def test_seed_decides_the_picture(pack, photo, tmp_path):
    def upscale(name, seed):
        output = tmp_path / name
        run(
            "runtime", "upscale", photo[0], "--pack", pack, "-o", output, "--steps", 1,
            "--seed", seed,
        )  # fmt: skip
        return output.read_bytes()

    first = upscale("a.png", 1)
    assert first == upscale("b.png", 1)
    assert first != upscale("c.png", 2)
