"""VOSR from a checkpoint to a picture by the real commands, on tiny random weights."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from artifacts.autoencoder.files import WEIGHTS
from artifacts.vosr.layout import block_linears
from planner.cli.app import app as qplan
from runtime.backends.reference import ReferenceLinear
from runtime.cli.app import app as qrun
from runtime.images.resizing import resize
from runtime.load import load_full_precision, load_pack, load_vae
from runtime.sampling.sampler import initial_noise
from runtime.upscale import encode_image, sample_latent, upscale
from runtime.vosr.image_encoder import load_image_encoder
from tests.artifacts.vosr.make_vosr import TINY, random_state, write_folder
from tests.runtime.vosr import plain_forward
from tests.runtime.vosr.make_base import make_base, make_encoder, make_qwen_vae

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}
RANKS = ("--global-rank", "2", "--local-rank", "1", "--recipe", "q-dit4sr")


def run(app, *arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def built(checkpoint, target, path, *options):
    done = run(qplan, "build", checkpoint, "--target", target, *RANKS, *options, "-o", path)
    assert done.exit_code == 0, done.output
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Checkpoint, base, and packs without and with the autoencoder."""
    folder = tmp_path_factory.mktemp("vosr")
    checkpoint = write_folder(folder / "VOSR_tiny_os", random_state())
    # The published settings, but for pictures of 64 px and tiles of 8 latent pixels.
    sampling = {"steps": 1, "guidance": 1.0, "shift": 1.0, "tile_latent": 8, "overlap_latent": 2}
    (checkpoint / "sampling.json").write_text(
        json.dumps({**sampling, "min_side_px": 64, "color_fix": "none"})
    )
    base = make_base(folder / "base")
    bare = built(checkpoint, "W8A8", folder / "w8a8.qpack")
    whole = built(checkpoint, "W4A4", folder / "w4a4.qpack", "--base", base)
    return checkpoint, base, bare, whole


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    return tmp_path / "in.png"


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image, np.float64) / 255


def test_full_precision_is_the_published_way_step_by_step(models, photo):
    """Enlarge, encode, features, one step in numpy, decode: against the command's picture."""
    checkpoint, base, *_ = models
    out = photo.with_name("out.png")
    done = run(qrun, "upscale", photo, "--full-precision", checkpoint, "--base", base, "-o", out)
    assert done.exit_code == 0, done.output

    rgb = torch.from_numpy(pixels_of(photo)).permute(2, 0, 1)[None].float()
    enlarged = resize(rgb, (64, 64))
    vae = load_vae(base / "vae", torch.device("cpu"))
    features = load_image_encoder([base], TINY, torch.device("cpu"))(enlarged)
    with torch.inference_mode():
        mode = vae.encode(2 * enlarged - 1).latent_dist.mode()
        control = (mode * vae.config.scaling_factor)[0].double().numpy()
        noise = initial_noise((1, 4, 8, 8), 0)[0].double().numpy()
        state = {name: tensor.double().numpy() for name, tensor in random_state().items()}
        latent = plain_forward.sample(state, TINY, noise, control, features.double().numpy(), 1)
        scaled = torch.from_numpy(latent)[None].float() / vae.config.scaling_factor
        expected = (vae.decode(scaled).sample / 2 + 0.5).clip(0, 1)[0].permute(1, 2, 0).numpy()
    assert expected.std() > 0.05
    np.testing.assert_allclose(pixels_of(out), expected, atol=0.51 / 255 + 1e-3)


def test_a_pack_of_eight_bits_gives_nearly_the_same_latent(models):
    checkpoint, base, bare, _ = models
    rgb = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(1))
    latents = []
    for pipeline in (
        load_full_precision(checkpoint, base=base, **CPU),
        load_pack(bare, base=base, backend="reference", **CPU),
    ):
        encoded = encode_image(pipeline, rgb, pipeline.sampling)
        latents.append(
            sample_latent(pipeline, encoded.control, pipeline.sampling, condition=encoded.condition)
        )
    exact, quantized = latents
    error = float((exact - quantized).square().mean() / exact.square().mean())
    # kappa(8) is -40.6 dB for weights and activations alike; two blocks add up their errors.
    assert 0 < error < 10 ** (-30 / 10)


def test_every_quantized_layer_is_called_at_its_bits(models):
    _, base, _, whole = models
    pipeline = load_pack(whole, base=base, backend="reference", **CPU)
    called = {}
    for name, module in pipeline.network.named_modules():
        if isinstance(module, ReferenceLinear):
            module.register_forward_pre_hook(
                lambda _m, arguments, name=name: called.update({name: arguments[1]})
            )
    upscale(pipeline, torch.rand(1, 3, 16, 16), pipeline.sampling)
    assert called == dict.fromkeys(block_linears(TINY), 4)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_pack_with_its_autoencoder_upscales(models, photo, backend):
    """Four tiles and more: the pack brings the autoencoder, the base the image encoder."""
    *_, base, _, whole = models
    wide = photo.with_name("wide.png")
    pixels = np.random.default_rng(1).integers(0, 256, (17, 26, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(wide)
    out = photo.with_name(f"{backend}.png")
    done = run(
        qrun, "upscale", wide, "--pack", whole, "--base", base, "-o", out, "--backend", backend
    )
    assert done.exit_code == 0, done.output
    assert pixels_of(out).shape == (68, 104, 3)
    assert pixels_of(out).std() > 0.02
    again = photo.with_name("again.png")
    run(qrun, "upscale", wide, "--pack", whole, "--base", base, "-o", again, "--backend", backend)
    assert again.read_bytes() == out.read_bytes()


def test_the_larger_networks_autoencoder(photo, tmp_path):
    """Qwen-Image's, of 16 channels, beside a pack of the transformer alone."""
    config = TINY.model_copy(update={"ae_type": "qwen"})
    checkpoint = write_folder(tmp_path / "VOSR_qwen_os", random_state(config), config)
    sampling = {"steps": 1, "guidance": 1.0, "shift": 1.0, "tile_latent": 8, "overlap_latent": 2}
    (checkpoint / "sampling.json").write_text(json.dumps({**sampling, "min_side_px": 64}))
    pack = built(checkpoint, "W4A4", tmp_path / "qwen.qpack")
    base = make_encoder(tmp_path / "base")
    make_qwen_vae(base)
    out = photo.with_name("qwen.png")
    done = run(qrun, "upscale", photo, "--pack", pack, "--base", base, "-o", out)
    assert done.exit_code == 0, done.output
    assert pixels_of(out).shape == (64, 64, 3)


def test_features_reach_the_picture(models):
    _, base, _, whole = models
    pipeline = load_pack(whole, base=base, **CPU)
    encoded = encode_image(pipeline, torch.rand(1, 3, 16, 16), pipeline.sampling)
    other = pipeline.condition_on(torch.zeros(1, 3, 64, 64))
    first, second = (
        sample_latent(pipeline, encoded.control, pipeline.sampling, condition=condition)
        for condition in (encoded.condition, other)
    )
    assert float((first - second).abs().max()) > 0.01
    with pytest.raises(ValueError, match="the picture's own features"):
        sample_latent(pipeline, encoded.control, pipeline.sampling)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ((), 2, "no image encoder"),
        (("--base", "BASE", "--guidance", "3"), 2, "guidance built in"),
        (("--base", "BASE", "--prompt", "sharp"), 2, "no text encoders"),
    ],
)
def test_what_cannot_run(models, photo, options, code, said):
    *_, base, _, whole = models
    options = [base if word == "BASE" else word for word in options]
    out = photo.with_name("no.png")
    done = run(qrun, "upscale", photo, "--pack", whole, *options, "-o", out)
    assert done.exit_code == code, done.output
    assert said in done.stderr
    assert not out.exists()


def test_a_bare_pack_asks_for_the_autoencoder(models, photo):
    _, _, bare, _ = models
    done = run(qrun, "upscale", photo, "--pack", bare, "-o", photo.with_name("no.png"))
    assert done.exit_code == 2
    assert "give --base with a Stable Diffusion 2.1 folder" in done.stderr


def test_an_autoencoder_with_older_names(models, tmp_path):
    """As the files of Stable Diffusion 2.1 have them."""
    _, base, *_ = models
    older = tmp_path / "base"
    shutil.copytree(base, older)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for name, tensor in load_file(base / "vae" / WEIGHTS).items():
        found = [new for new in names if f".attentions.0.{new}." in name]
        state[name.replace(found[0], names[found[0]]) if found else name] = tensor
    assert "encoder.mid_block.attentions.0.proj_attn.bias" in state
    save_file(state, older / "vae" / WEIGHTS)
    expected = load_vae(base / "vae", torch.device("cpu")).state_dict()
    got = load_vae(older / "vae", torch.device("cpu")).state_dict()
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())
