"""A network's closing step, trained by the picture that comes of it."""

import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from tests.training.test_network import CONFIG
from training import __main__ as main
from training import closing, detail, pulls
from training.autoencoder import decode
from training.closing import ClosingBatches, ClosingRun, closing_loss, kept_of, train_closing
from training.closing_states import ClosingStates, has_closing_step
from training.crops import to_batch
from training.network import TIMESTEPS, load_exported, new_network, prompt_table
from training.networks import NamedNetwork
from training.pairs import encode
from training.prompts import NAMES
from training.pulls import Pulls
from training.sampled import TrainedNetwork
from training.schedule import WarmupStableDecay
from training.shards import make_shards

CPU = torch.device("cpu")
NAMED = NamedNetwork("tiny", CONFIG, 0, "A test.")
NOTHING = Pulls(0, 0, 0, 0, 0)


@pytest.fixture(scope="module")
def samples(folder, crops, vae, tmp_path_factory):
    out = tmp_path_factory.mktemp("closing")
    return make_shards(ClosingStates, crops, vae, [folder], 2, out, crop_px=64, size=6)


def pictures(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)


def test_states_are_those_of_the_networks_own_sampling(folder, vae):
    """Of prompts that want detail every step but the closing one is kept, of the others all."""
    network = TrainedNetwork.load(folder, CPU)
    prompt = torch.tensor([NAMES.index(name) for name in ("natural", "smooth")]).repeat(12)
    targets, controls = pictures(24, 0), pictures(24, 1)
    torch.manual_seed(4)
    made = ClosingStates.make(vae, network, targets, controls, prompt)
    control = encode(vae, to_batch(list(controls.numpy())))
    assert torch.equal(made.control, control.bfloat16())
    assert torch.equal(made.target, targets)
    torch.manual_seed(4)
    steps = list(network.steps(control, prompt))
    sigmas = [step.sigma for step in steps]
    assert sigmas[-1] < 0.02 < sigmas[-2] == pytest.approx(0.338, abs=1e-3)
    torch.testing.assert_close(made.sigma, torch.full((24,), sigmas[-2]))
    torch.testing.assert_close(made.latent, steps[-2].latent.bfloat16())
    kept = {0: set(), 1: set()}
    for row, sigma in enumerate(made.kept_sigma.tolist()):
        number = [round(s, 4) for s in sigmas].index(round(sigma, 4))
        kept[row % 2].add(number)
        for name, of in (("kept", "latent"), ("kept_velocity", "velocity")):
            wanted = getattr(steps[number], of)[row].bfloat16()
            torch.testing.assert_close(getattr(made, name)[row], wanted)
    assert max(kept[0]) <= 5 < max(kept[1]) == 6
    assert min(len(numbers) for numbers in kept.values()) > 2


def test_a_network_of_one_step_has_no_closing_step(folder):
    network = TrainedNetwork.load(folder, CPU)
    found = []
    for steps in (1, 2, 3):
        settings = network.settings.override(patch_size=2, steps=steps)
        found.append(has_closing_step(replace(network, settings=settings)))
    assert found == [False, False, True]  # the last step of two begins with next to no noise


def numbered(count):
    """Samples in which everything of sample n is n, and of steps to be kept 100 more."""
    numbers = torch.arange(float(count))
    latents = numbers.view(-1, 1, 1, 1).expand(-1, 16, 8, 8)
    return ClosingStates(
        latent=latents.bfloat16(),
        sigma=numbers,
        kept=(latents + 100).bfloat16(),
        kept_sigma=numbers + 100,
        kept_velocity=(latents + 100).bfloat16(),
        control=latents.bfloat16(),
        target=numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 32, 32, 3),
        prompt=torch.arange(count) % len(NAMES),
    )


def test_what_lies_in_a_batch_belongs_together():
    torch.manual_seed(0)
    latent, sigma, control, prompt, images, kept = ClosingBatches(numbered(8), CPU).draw(40)
    assert kept_of(40) == 8
    assert len(images) == 32
    number = control[:, 0, 0, 0]
    torch.testing.assert_close(latent[:, 0, 0, 0], number + torch.tensor([0.0] * 32 + [100.0] * 8))
    torch.testing.assert_close(sigma, latent[:, 0, 0, 0])
    torch.testing.assert_close(kept[:, 0, 0, 0], number[32:] + 100)
    torch.testing.assert_close((images[:, 0, 0, 0] + 1) * 127.5, number[:32], atol=1e-3, rtol=0)
    assert torch.equal(prompt, number.long() % len(NAMES))
    wanting = {NAMES.index(name) for name in ("natural", "sharp")}
    assert set(prompt[:32].tolist()) == wanting
    assert set(prompt[32:].tolist()) > wanting


def test_the_way_to_the_image_is_judged_and_what_is_to_be_kept(samples, vae):
    """A network that goes straight to known images makes no error but that of their pictures."""
    torch.manual_seed(1)
    latent, sigma, control, prompt, _, kept = ClosingBatches(samples, CPU).draw(5)
    image = 0.5 * latent[:4] + 0.1
    shown = decode(vae, image)
    told = []

    def network(given, _control, embeds, _pooled, timestep):
        told.append((timestep, embeds))
        way = (given[:4] - image) / sigma[:4, None, None, None]
        return torch.cat([way, kept + 0.5])

    table = prompt_table(CONFIG, 0)
    loss = closing_loss(network, vae, table, (latent, sigma, control, prompt, shown, kept), NOTHING)
    assert float(loss) == pytest.approx(closing.KEPT_WEIGHT * 0.25, rel=1e-3)
    torch.testing.assert_close(told[0][0], sigma * TIMESTEPS)
    torch.testing.assert_close(told[0][1], table.embeds[prompt])
    darker = latent, sigma, control, prompt, shown - 0.2, kept
    assert closing_loss(network, vae, table, darker, NOTHING) > loss + 0.1


def test_pulls_are_weighed_by_all_of_them(samples, vae):
    """However hard, pulls leave the picture's error about as large beside that of other steps."""
    torch.manual_seed(1)
    network = new_network(CONFIG, 0)
    batch = ClosingBatches(samples, CPU).draw(5)
    losses = [
        float(closing_loss(network, vae, prompt_table(CONFIG, 0), batch, asked).detach())
        for asked in (Pulls(10, 1, 1, 1, 1, 1), Pulls(100, 10, 10, 10, 10, 10))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.3)
    assert Pulls(1, 2, 3, 4, 5, 6).total == 1 + 2 * 1 + 2 + 3 + 4 + 5 + 6


def test_a_step_waits_for_no_device(samples, vae):
    detail._scharr(CPU, torch.float32)  # made while a step warms up
    network, table = new_network(CONFIG, 0), prompt_table(CONFIG, 0)
    batch = ClosingBatches(samples, CPU).draw(5)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = tuple(mode.from_tensor(tensor) for tensor in batch)
        loss = closing_loss(network, vae, table, fake, Pulls())
        loss.backward()
        with pytest.raises(DataDependentOutputException):
            bool(loss > 0)


def train(folder, vae, sets, out, *steps):
    """The network after so many steps, in one run or continued."""
    for count in steps:
        schedule = WarmupStableDecay(count, warmup=2)
        run = ClosingRun(NAMED, schedule, count=2, learning_rate=2e-3, pulls=NOTHING)
        network = train_closing(sets, folder, vae, out, run, device=CPU)
    return network


def test_it_learns_and_goes_on_where_it_stopped(folder, samples, vae, tmp_path, monkeypatch):
    torch.manual_seed(2)
    latent, sigma, control, prompt, images, kept = ClosingBatches(samples, CPU).draw(24)
    table = prompt_table(CONFIG, 0)

    def errors(network):
        """Of pictures, and of velocities that were to be kept."""
        with torch.no_grad():
            batch = latent, sigma, control, prompt, images, kept
            whole = float(closing_loss(network, vae, table, batch, NOTHING))
            found = network(
                latent, control, table.embeds[prompt], table.pooled[prompt], sigma * TIMESTEPS
            )
            moved = float((found[len(images) :] - kept).square().mean())
        return whole - closing.KEPT_WEIGHT * moved, moved

    untrained = new_network(CONFIG, 0)
    load_exported(untrained, folder)
    before, whole = errors(untrained), train(folder, vae, [samples], tmp_path / "whole", 24)
    after = errors(whole)
    assert after[0] < 0.95 * before[0]
    state = torch.load(next((tmp_path / "whole").iterdir()), weights_only=True)
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, state["averages"][repr(closing.AVERAGE_DECAY)][name])
    prolonged = train(folder, vae, [samples], tmp_path / "prolonged", 9, 24)
    for a, b in zip(whole.parameters(), prolonged.parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(p.grad is None for p in vae.parameters())
    monkeypatch.setattr(closing, "KEPT_WEIGHT", 0.0)
    assert after[1] < 0.5 * errors(train(folder, vae, [samples], tmp_path / "free", 24))[1]


def test_another_model_does_not_go_on_where_one_stopped(folder, samples, vae, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    weights = other / "transformer/diffusion_pytorch_model.safetensors"
    save_file({name: tensor + 0.01 for name, tensor in load_file(weights).items()}, weights)
    first, second = (
        train(model, vae, [samples], tmp_path / "out", 2).state_dict() for model in (folder, other)
    )
    alone = train(other, vae, [samples], tmp_path / "alone", 2).state_dict()
    assert all(torch.equal(second[name], alone[name]) for name in alone)
    assert not all(torch.equal(second[name], first[name]) for name in first)


def test_crops_of_both_sizes_are_seen_in_turn(folder, samples, vae, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        ClosingBatches,
        "draw",
        lambda self, count: seen.append((self.side_px, count)) or [torch.zeros(1)],
    )
    monkeypatch.setattr(
        closing, "closing_loss", lambda network, *_rest: next(network.parameters()).sum()
    )
    small = replace(samples, target=samples.target[:, :32, :32])
    train(folder, vae, [small, samples], tmp_path, 4)
    assert seen == [(32, 32), (64, 8)] * 2


def test_a_run_that_was_stopped_gives_no_network(folder, samples, vae, tmp_path):
    run = ClosingRun(NAMED, WarmupStableDecay(9), count=2, pulls=NOTHING)
    assert train_closing([samples], folder, vae, tmp_path, run, device=CPU, minutes=0) is None
    assert len(list(tmp_path.glob("closing-*.pt"))) == 1


def test_the_pull_of_patterns_is_of_what_repeats_with_the_patches(monkeypatch):
    """It is asked of every picture beside what the other errors have of it."""
    wanted = torch.zeros(2, 3, 32, 32)
    wave = 0.1 * torch.cos(torch.arange(32) * torch.pi / 4).expand(2, 3, 32, 32)
    found = (wanted + wave).requires_grad_(True)
    first = torch.tensor([True, False])
    plain, pulled = (
        float(pulls.pulled_error(found, wanted, first, Pulls(0, 0, 0, 0, 0, factor)).detach())
        for factor in (0, 50)
    )
    monkeypatch.setattr(pulls, "balanced", lambda _p, base, errors: base + errors[0][1])
    sharing = float(pulls.pulled_error(found, wanted, first, Pulls(0, 0, 0, 0, 0, 50)).detach())
    assert sharing - plain == pytest.approx(0.1**2 / 2, rel=1e-3)
    assert pulled > 2 * plain


@pytest.fixture
def command(crops, folder, tmp_path, monkeypatch):
    """Runs the stage on tiny crops."""
    monkeypatch.setattr(main, "training_photos", lambda _cache: crops.photos)
    monkeypatch.setitem(main.NETWORKS, "dit4sr-mini", NAMED)
    monkeypatch.setattr(main, "CROPS_PX", (32, 64))
    monkeypatch.setattr(closing, "CROPS_PX", (32, 64))
    monkeypatch.setattr(main, "make_shards", lambda *a, size, **k: make_shards(*a, size=2, **k))

    def run(*options):
        given = ["closing", "--out", tmp_path, "--shards", 1, "--steps", 2, "--decay", 1, *options]
        monkeypatch.setattr("sys.argv", ["training", *map(str, given)])
        main.main()

    return run


def test_the_command_writes_the_networks_weights(command, folder, tmp_path, monkeypatch):
    runs = []
    train_it = main.train_closing
    monkeypatch.setattr(
        main, "train_closing", lambda *a, **k: runs.append(a[4]) or train_it(*a, **k)
    )
    shown = tmp_path / "shown"
    (shown / "transformer").mkdir(parents=True)
    command("--from", folder, "--folder", shown, "--pull", "detail=2")
    assert [run.pulls for run in runs] == [replace(closing.PULLS, detail=2)]
    file = "transformer/diffusion_pytorch_model.safetensors"
    found, before = (load_file(model / file) for model in (shown, folder))
    assert found.keys() == before.keys()
    assert (shown / file).stat().st_mode & 0o044 == 0o666 & ~umask() & 0o044
    own = tmp_path / "dit4sr-mini"
    state = torch.load(next(own.glob("closing-*.pt")), weights_only=True)["averages"]
    for name, tensor in state[repr(closing.AVERAGE_DECAY)].items():
        assert torch.equal(found[name], tensor.bfloat16())
    assert not all(torch.equal(found[name], before[name].bfloat16()) for name in found)
    assert [len(list((own / f"closing{px}").iterdir())) for px in (32, 64)] == [1, 1]


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_missing_model_is_named(command, tmp_path):
    for options, missing in (([], "exported/dit4sr-mini"), (["--from", tmp_path / "no"], "no")):
        with pytest.raises(SystemExit, match=f"no exported model in {tmp_path / missing}: name"):
            command(*options)


def test_what_cannot_be_trained_is_told_before_anything_is_made(command, folder, tmp_path):
    other = tmp_path / "one-step"
    shutil.copytree(folder, other)
    settings = json.loads((other / "sampling.json").read_text()) | {"steps": 1}
    (other / "sampling.json").write_text(json.dumps(settings))
    for options, message in (
        (["--from", folder, folder], "closing trains one model, and --from names 2"),
        (["--from", folder, "--folder", folder], "which --folder must not change"),
        (["--from", folder, "--folder", tmp_path / "new"], f"no exported model in {tmp_path}/new"),
        (["--from", folder, "--network", "dit4sr-narrow"], "another shape than dit4sr-narrow"),
        (["--from", other], "samples in one step"),
    ):
        with pytest.raises(SystemExit, match=message):
            command(*options)
    assert not (tmp_path / "dit4sr-mini").exists()
