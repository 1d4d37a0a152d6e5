"""The decoder trained on what networks make: samples, shards, and that it learns from them."""

import shutil
import sys
from dataclasses import replace
from functools import partial
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from runtime.load import load_full_precision
from runtime.sampling.sampler import sample
from training import __main__ as main
from training import detail, features, pulls, windows
from training.autoencoder import load_autoencoder
from training.crops import to_batch
from training.generated import Generated
from training.prompts import NAMES
from training.pulls import Pulls
from training.refined_decoder import PULLS, RefineRun, refine_decoder, refining_loss
from training.sampled import GuidedModelError, TrainedNetwork
from training.schedule import WarmupStableDecay
from training.shards import make_shards
from training.windows import Windows

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def samples(folder, crops, vae, tmp_path_factory):
    out = tmp_path_factory.mktemp("generated")
    return make_shards(Generated, crops, vae, [folder], 2, out, crop_px=64, size=6)


def test_a_sample_is_what_the_runtime_makes(folder):
    network = TrainedNetwork.load(folder, CPU)
    pipeline = load_full_precision(folder, device=CPU, dtype=torch.float32)
    control = torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    found = network.sample(control, torch.tensor([NAMES.index("natural")]))
    torch.manual_seed(2)
    noise = torch.randn(control.shape)
    wanted = sample(
        pipeline.network,
        control,
        pipeline.prompts,
        pipeline.sampling,
        noise=noise,
        patch_size=pipeline.patch_size,
    )
    # Where a processor multiplies in bfloat16, the sample is made in it.
    assert float((found - wanted).norm() / wanted.norm()) < 0.02


def test_shards_are_made_once_and_each_by_its_own_network(
    folder, crops, vae, tmp_path, monkeypatch
):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    loaded = []
    load = TrainedNetwork.load
    monkeypatch.setattr(
        TrainedNetwork, "load", lambda path, device: loaded.append(path) or load(path, device)
    )

    def make(count):
        make_shards(Generated, crops, vae, [folder, other], count, tmp_path, crop_px=32, size=2)
        return [tmp_path / f"generated-{index}.safetensors" for index in range(count)]

    first = make(1)[0].read_bytes()
    assert loaded == [folder]
    files = make(3)
    assert loaded == [folder, other, folder]
    assert files[0].read_bytes() == first
    assert files[1].read_bytes() != files[2].read_bytes()
    files[0].unlink()
    assert make(1)[0].read_bytes() == first
    trained_on = other / "transformer/diffusion_pytorch_model.safetensors"
    tensors = load_file(trained_on)
    save_file({name: tensor + 0.01 for name, tensor in tensors.items()}, trained_on)
    before = files[1].read_bytes()
    loaded.clear()
    assert make(3)[1].read_bytes() != before
    assert loaded == [other]


def test_other_processes_make_the_same_shards(folder, crops, vae, tmp_path):
    shards = []
    for workers in (0, 2):
        out = tmp_path / str(workers)
        make_shards(Generated, crops, vae, [folder], 3, out, crop_px=32, size=2, workers=workers)
        shards.append([file.read_bytes() for file in sorted(out.iterdir())])
    assert shards[0] == shards[1]
    assert len(shards[0]) == 3


def test_a_network_with_guidance_is_refused(folder, tmp_path):
    guided = tmp_path / "guided"
    shutil.copytree(folder, guided)
    file = guided / "sampling.json"
    file.write_text(file.read_text().replace('"guidance": 1.0', '"guidance": 2.0'))
    with pytest.raises(GuidedModelError, match="is sampled with guidance"):
        TrainedNetwork.load(guided, CPU)


def test_windows_of_latents_and_pictures_belong_together(monkeypatch):
    """Every latent pixel of a photo has its own number, and so has the picture below it."""
    monkeypatch.setattr(windows, "LATENT_NOISE", 0.0)
    numbers = torch.arange(64.0).view(1, 1, 8, 8)
    target = numbers.repeat_interleave(4, 2).repeat_interleave(4, 3)[0, 0]
    made = Generated(
        latent=-numbers.bfloat16(),
        encoded=numbers.bfloat16(),
        target=target.to(torch.uint8)[None, :, :, None].expand(1, 32, 32, 3),
        prompt=torch.tensor([0]),
    )
    monkeypatch.setattr(windows, "WINDOW", 5)
    torch.manual_seed(0)
    latents, pictures, detailed = Windows(made, CPU).draw(8)
    assert detailed.tolist() == [True] * 5 + [False] * 3
    latents[:5] *= -1
    shrunk = (pictures[:, :1, ::4, ::4] + 1) * 127.5
    torch.testing.assert_close(latents, shrunk, atol=1e-3, rtol=0)
    assert len({float(corner) for corner in latents[:, 0, 0, 0]}) > 1


def test_windows_of_the_default_prompt_are_more_frequent():
    """One sample in four is natural: 0.4, and a quarter of the other 0.6."""
    prompt = torch.arange(4).repeat(8)
    made = Generated(
        latent=prompt.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).bfloat16(),
        encoded=torch.zeros(32, 1, 4, 4, dtype=torch.bfloat16),
        target=torch.zeros(32, 16, 16, 3, dtype=torch.uint8),
        prompt=prompt,
    )
    torch.manual_seed(0)
    latents, _, detailed = Windows(made, CPU).draw(3200)
    drawn = latents[:2000, 0, 0, 0]
    assert float((drawn == NAMES.index("natural")).float().mean()) == pytest.approx(0.55, abs=0.04)
    wanting = torch.tensor([NAMES.index(name) for name in ("natural", "sharp")])
    assert torch.equal(detailed[:2000], torch.isin(drawn.long(), wanting))
    assert not detailed[2000:].any()


@pytest.fixture
def loss_of(samples, vae):
    """Loss of four samples by which of them ask for detail, and how hard errors of it pull."""

    def loss(latents, detailed, pulls):
        images = to_batch(list(samples.target[:4].numpy()))
        return float(refining_loss(vae, latents[:4].float(), images, detailed, pulls).detach())

    yield loss
    vae.requires_grad_(False)


def test_detail_is_asked_of_prompts_that_ask_for_it(samples, vae, loss_of):
    vae.requires_grad_(True)
    some = torch.tensor([True, False, False, False])
    for asked in (Pulls(1, 0, 0, 0, 0), Pulls(0, 1, 1, 1, 1), Pulls(0, 0, 0, 0, 0, 1), PULLS):
        plain, detailed = (loss_of(samples.latent, d, asked) for d in (some & False, some))
        assert detailed > plain


NAMED = {
    "detail": ("gradient_difference", "spectrum_difference"),
    "quiet": ("quiet_error",),
    "overshoot": ("overshoot_error",),
    "ragged": ("ragged_error",),
    "weave": ("weave_error",),
    "features": ("feature_error",),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_pull_is_of_the_error_of_its_name(name, samples, vae, loss_of, monkeypatch):
    """It is asked of the pictures that networks made, and counts for those with detail alone."""
    called = []

    def stand_in(own, found, _wanted):
        called.append((own, len(found)))
        return found.mean(dim=(1, 2, 3)) * 0 + torch.tensor([7.0, 0.0])[: len(found)]

    for error in sum(NAMED.values(), ()):
        monkeypatch.setattr(pulls, error, partial(stand_in, error))
    monkeypatch.setattr(pulls, "balanced", lambda _p, base, errors: base + errors[0][1] / share)
    share = 1 - windows.PHOTO_SHARE
    vae.requires_grad_(True)
    nothing = Pulls(0, 0, 0, 0, 0)
    first, second = torch.eye(4, dtype=torch.bool)[:2]
    plain = loss_of(samples.latent, first, nothing)
    for detailed, more in ((first, 7.0), (second, 0.0)):
        called.clear()
        faint = replace(nothing, **{name: 1e-9})  # which leaves the weight of photos as it is
        assert loss_of(samples.latent, detailed, faint) - plain == pytest.approx(more, abs=1e-4)
        assert called == [(error, 2) for error in NAMED[name]]


def test_a_step_waits_for_no_device(vae):
    """Tensors without contents refuse to be read; nor may which samples ask for detail matter."""
    vae.requires_grad_(True)
    detail._scharr(CPU, torch.float32)  # made while a step warms up, as is the next
    features._network(CPU)
    with FakeTensorMode(allow_non_fake_inputs=True):
        batch = torch.empty(8, 16, 24, 24), torch.empty(8, 3, 96, 96), torch.empty(8) > 0
        loss = refining_loss(vae, *batch, PULLS)
        loss.backward()
        with pytest.raises(DataDependentOutputException):
            bool(loss > 0)
    vae.requires_grad_(False)
    for parameter in vae.parameters():
        parameter.grad = None


def test_photos_count_more_the_harder_detail_pulls(samples, vae, loss_of):
    vae.requires_grad_(True)
    nowhere = torch.zeros(4, dtype=torch.bool)
    losses = [loss_of(samples.encoded, nowhere, Pulls(weight, 0, 0, 0, 0)) for weight in (0, 1, 3)]
    assert losses[0] < losses[1]
    assert losses[2] - losses[1] == pytest.approx(2 * (losses[1] - losses[0]), rel=1e-3)


@pytest.mark.parametrize("stage", ["decoder", "network", "one-step", "refine", "export"])
def test_a_missing_autoencoder_is_named(stage, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["training", stage, "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"no autoencoder in {tmp_path}/vae: train one"):
        main.main()


def test_missing_packages_are_named_before_anything_is_made(folder, vae, tmp_path, monkeypatch):
    def refine(*more):
        vae.save_pretrained(tmp_path / "vae")
        options = ["training", "refine", "--out", str(tmp_path), "--from", str(folder), *more]
        monkeypatch.setattr("sys.argv", options)
        main.main()

    monkeypatch.setattr(main, "make_shards", Mock(side_effect=AssertionError("shards were made")))
    monkeypatch.setattr(features, "PACKAGES", ("torch", "no_such_package"))
    with pytest.raises(SystemExit, match=r"need no_such_package, not installed.*features=0"):
        refine()
    made = SystemExit("made without features")
    monkeypatch.setattr(main, "make_shards", Mock(side_effect=made))
    monkeypatch.setattr(main, "training_photos", lambda _folder: {})
    monkeypatch.setattr(main, "Crops", lambda *_a: None)
    with pytest.raises(SystemExit, match="made without features"):
        refine("--pull", "features=0")


def test_pulls_are_named(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["training", "refine", "--pull", "detail=20", "weave=7.5"])
    assert main.parse_arguments().pull == [("detail", 20.0), ("weave", 7.5)]
    monkeypatch.setattr(
        "sys.argv", ["training", "refine", "--pull", "detail=2", "--pull", "quiet=0"]
    )
    assert main.parse_arguments().pull == [("detail", 2.0), ("quiet", 0.0)]
    for wrong in ("contrast=1", "detail", "detail=much", "detail=-1", "detail=nan", "detail=inf"):
        monkeypatch.setattr("sys.argv", ["training", "refine", "--pull", wrong])
        with pytest.raises(SystemExit):
            main.parse_arguments()
        assert f"'{wrong}' is not NAME=FACTOR with a name of detail," in capsys.readouterr().err


def test_it_learns_and_goes_on_where_it_stopped(samples, vae, tmp_path):
    def error(out):
        vae = load_autoencoder(out, CPU)
        torch.manual_seed(3)
        with torch.no_grad():
            latents, images, _ = Windows(samples, CPU).draw(12)
            nothing = torch.zeros(12, dtype=torch.bool)
            return float(refining_loss(vae, latents, images, nothing, Pulls(0, 0, 0, 0, 0)))

    def train(name, *steps):
        out = tmp_path / name
        vae.save_pretrained(out / "vae")
        for count in steps:
            run = RefineRun(WarmupStableDecay(count, warmup=2), count=4, learning_rate=1e-3)
            assert refine_decoder(samples, out, run, device=CPU)
        return out

    whole = train("whole", 30)
    assert error(whole) < 0.9 * error(train("untrained"))
    encoders = [load_autoencoder(out, CPU).encoder for out in (whole, tmp_path / "untrained")]
    for a, b in zip(*(encoder.parameters() for encoder in encoders), strict=True):
        assert torch.equal(a, b)
    name = "vae/diffusion_pytorch_model.safetensors"
    assert (train("prolonged", 11, 30) / name).read_bytes() == (whole / name).read_bytes()


def test_the_command_refines_what_lies_in_its_folder(folder, crops, vae, tmp_path, monkeypatch):
    vae.save_pretrained(tmp_path / "vae")
    before = (tmp_path / "vae/diffusion_pytorch_model.safetensors").read_bytes()
    monkeypatch.setattr(main, "training_photos", lambda _cache: crops.photos)
    monkeypatch.setattr(main, "make_shards", partial(make_shards, crop_px=32, size=4))
    shown = tmp_path / "shown"
    shown.mkdir()
    (shown / "vae").symlink_to(tmp_path / "vae")  # as the second network's; not written through
    options = ["--from", folder, "--shards", 2, "--steps", 3, "--decay", 1, "--folder", shown]
    options += ["--pull", "detail=20", "weave=7.5"]
    monkeypatch.setattr("sys.argv", ["training", "refine", "--out", tmp_path, *options])
    monkeypatch.setattr("sys.argv", [str(argument) for argument in sys.argv])
    main.main()
    assert (tmp_path / "vae/diffusion_pytorch_model.safetensors").read_bytes() == before
    own = tmp_path / "dit4sr-mini"
    assert len(list((own / "generated").iterdir())) == 2
    assert (own / "vae/diffusion_pytorch_model.safetensors").read_bytes() != before
    wanted = load_autoencoder(own, CPU).decoder.conv_out.weight
    found = load_file(shown / "vae/diffusion_pytorch_model.safetensors")["decoder.conv_out.weight"]
    assert torch.equal(found, wanted.bfloat16())
    assert str(tmp_path) not in (shown / "vae/config.json").read_text()


def test_training_all_ends_with_it(folder, crops, vae, tmp_path, monkeypatch):
    exported = tmp_path / "exported/dit4sr-mini"
    vae.save_pretrained(tmp_path / "vae")
    monkeypatch.setattr(main, "training_photos", lambda _cache: crops.photos)
    monkeypatch.setattr(main, "make_shards", partial(make_shards, crop_px=32, size=4))
    for stage in ("_autoencoder", "_decoder", "_network"):
        monkeypatch.setattr(main, stage, lambda _arguments: True)
    ended = []
    monkeypatch.setattr(main, "_closing", lambda _arguments, *models: ended.append(models))
    monkeypatch.setattr(main, "_export", lambda _arguments: shutil.copytree(folder, exported))
    options = ["--out", str(tmp_path), "--shards", "1", "--steps", "2", "--decay", "1"]
    monkeypatch.setattr("sys.argv", ["training", "all", *options, "--minutes", "0"])
    main.main()
    assert not ended  # what is stopped is not gone on with
    shutil.rmtree(exported)
    monkeypatch.setattr("sys.argv", ["training", "all", *options])
    main.main()
    wanted = load_autoencoder(tmp_path / "dit4sr-mini", CPU).decoder.conv_out.weight
    found, before = (
        load_file(model / "vae/diffusion_pytorch_model.safetensors")["decoder.conv_out.weight"]
        for model in (exported, folder)
    )
    assert torch.equal(found, wanted.bfloat16())
    assert not torch.equal(found, before.bfloat16())
    assert ended == [(exported, exported)]
