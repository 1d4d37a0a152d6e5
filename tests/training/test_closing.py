"""A network's closing steps, trained by the picture that comes of them."""

import json
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from tests.training.test_network import CONFIG
from training import __main__ as main
from training import closing, detail, pulls
from training.autoencoder import decode
from training.closing import (
    ClosingBatches,
    ClosingRun,
    Newest,
    closing_loss,
    in_turn,
    kept_of,
    train_closing,
)
from training.closing_states import ClosingStates, Stride, closing_strides
from training.crops import to_batch
from training.made_pool import MadePool
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
STRIDES = [Stride(0.7, -0.4), Stride(0.3, -0.3)]


@pytest.fixture(scope="module")
def samples(folder, crops, vae, tmp_path_factory):
    out = tmp_path_factory.mktemp("closing")
    return make_shards(ClosingStates, crops, vae, [folder], 2, out, crop_px=64, size=6)


def pictures(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)


def test_states_are_those_of_the_networks_own_sampling(folder, vae):
    """Of prompts that want detail every step but the closing ones is kept, of the others all."""
    network = TrainedNetwork.load(folder, CPU)
    prompt = torch.tensor([NAMES.index(name) for name in ("natural", "smooth")]).repeat(16)
    targets, controls = pictures(32, 0), pictures(32, 1)
    torch.manual_seed(4)
    made = ClosingStates.make(vae, network, targets, controls, prompt)
    control = encode(vae, to_batch(list(controls.numpy())))
    assert torch.equal(made.control, control.bfloat16())
    assert torch.equal(made.target, targets)
    torch.manual_seed(4)
    steps = list(network.steps(control, prompt))
    sigmas = [step.sigma for step in steps]
    torch.testing.assert_close(made.latent, steps[4].latent.bfloat16())
    kept = {0: set(), 1: set()}
    for row, sigma in enumerate(made.kept_sigma.tolist()):
        number = [round(s, 4) for s in sigmas].index(round(sigma, 4))
        kept[row % 2].add(number)
        for name, of in (("kept", "latent"), ("kept_velocity", "velocity")):
            wanted = getattr(steps[number], of)[row].bfloat16()
            torch.testing.assert_close(getattr(made, name)[row], wanted)
    assert max(kept[0]) <= 3 < max(kept[1]) == 6
    assert min(len(numbers) for numbers in kept.values()) > 2


def test_closing_strides_lead_from_where_samples_begin_to_the_image(folder):
    network = TrainedNetwork.load(folder, CPU)
    sigmas = network.schedule.sigmas.tolist()
    strides = closing_strides(network)
    assert [stride.sigma for stride in strides] == sigmas[4:7]
    assert sigmas[7] < 0.02 < sigmas[6] == pytest.approx(0.338, abs=1e-3)
    for stride, after in zip(strides, [*sigmas[5:7], 0.0], strict=True):
        assert stride.sigma + stride.change == pytest.approx(after, abs=1e-7)


def test_the_first_step_is_no_closing_one(folder):
    network = TrainedNetwork.load(folder, CPU)
    found = []
    for steps in (1, 2, 3, 4, 5, 6):
        settings = network.settings.override(patch_size=2, steps=steps)
        found.append(len(closing_strides(replace(network, settings=settings))))
    assert found == [0, 0, 1, 2, 3, 3]  # the last step begins with next to no noise


def numbered(count):
    """Samples in which everything of sample n is n, and of steps to be kept 100 more."""
    numbers = torch.arange(float(count))
    latents = numbers.view(-1, 1, 1, 1).expand(-1, 16, 8, 8)
    return ClosingStates(
        latent=latents.bfloat16(),
        kept=(latents + 100).bfloat16(),
        kept_sigma=numbers + 100,
        kept_velocity=(latents + 100).bfloat16(),
        control=latents.bfloat16(),
        target=numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 32, 32, 3),
        prompt=torch.arange(count) % len(NAMES),
    )


def test_what_lies_in_a_batch_belongs_together():
    torch.manual_seed(0)
    batch = ClosingBatches(numbered(8), CPU).draw(40, strides=3)
    latent, control, prompt, images, kept, kept_sigma, kept_control, kept_prompt, velocity = batch
    assert kept_of(40) == 8
    assert len(latent) == 32
    number = control[:, 0, 0, 0]
    assert torch.equal(latent[:, 0, 0, 0], number)
    torch.testing.assert_close((images[:, 0, 0, 0] + 1) * 127.5, number, atol=1e-3, rtol=0)
    assert torch.equal(prompt, number.long() % len(NAMES))
    assert set(prompt.tolist()) == {NAMES.index(name) for name in ("natural", "sharp")}
    number = kept_control[:, 0, 0, 0]
    assert len(number) == 24
    for found in (kept[:, 0, 0, 0], kept_sigma, velocity[:, 0, 0, 0]):
        assert torch.equal(found, number + 100)
    assert torch.equal(kept_prompt, number.long() % len(NAMES))
    assert len(set(kept_prompt.tolist())) == len(NAMES)


def test_the_way_to_the_image_is_judged_and_what_is_to_be_kept(samples, vae):
    """A network that goes straight to known images makes no error but that of their pictures."""
    torch.manual_seed(1)
    batch = ClosingBatches(samples, CPU).draw(5, strides=2)
    latent, control, prompt, _, kept, kept_sigma, kept_control, kept_prompt, velocity = batch
    image = 0.5 * latent + 0.1
    shown = decode(vae, image)
    told = []

    def network(given, controls, embeds, _pooled, timestep):
        told.append((given, controls, embeds, timestep))
        way = (given[:4] - image) / (timestep[:4] / TIMESTEPS)[:, None, None, None]
        # Noise goes down in proportion, so the second step finds the same direction.
        return torch.cat([way, velocity[len(told) - 1 :][:1] + 0.5])

    def loss(pictures):
        told.clear()
        given = (latent, control, prompt, pictures, *batch[4:])
        return closing_loss(network, vae, table, STRIDES, given, NOTHING)

    table = prompt_table(CONFIG, 0)
    assert float(loss(shown)) == pytest.approx(closing.KEPT_WEIGHT * 0.25, rel=1e-3)
    for number, (given, controls, embeds, timestep) in enumerate(told):
        mine = slice(number, number + 1)
        sigma = torch.cat([torch.full((4,), STRIDES[number].sigma), kept_sigma[mine]])
        torch.testing.assert_close(timestep, sigma * TIMESTEPS)
        assert torch.equal(controls, torch.cat([control, kept_control[mine]]))
        assert torch.equal(embeds, table.embeds[torch.cat([prompt, kept_prompt[mine]])])
        assert torch.equal(given[4:], kept[mine])
    torch.testing.assert_close(told[1][0][:4], latent + 0.4 * (image - latent) / 0.7)
    assert loss(shown - 0.2) > 0.1 + closing.KEPT_WEIGHT * 0.25


def test_gradients_come_back_through_all_steps(samples, vae):
    torch.manual_seed(1)
    batch = ClosingBatches(samples, CPU).draw(5, strides=2)
    found = []

    def network(given, *_rest):
        found.append((0.1 * given).detach().requires_grad_(True))
        return found[-1]

    table = prompt_table(CONFIG, 0)
    closing_loss(network, vae, table, STRIDES, batch, NOTHING).backward()
    assert len(found) == 2
    for velocity in found:
        assert velocity.grad[:4].abs().sum() > 0


def test_pulls_are_weighed_by_all_of_them(samples, vae):
    """However hard, pulls leave the picture's error about as large beside that of other steps."""
    torch.manual_seed(1)
    network = new_network(CONFIG, 0)
    batch = ClosingBatches(samples, CPU).draw(5, strides=2)
    losses = [
        float(closing_loss(network, vae, prompt_table(CONFIG, 0), STRIDES, batch, asked).detach())
        for asked in (Pulls(10, 1, 1, 1, 1, 1), Pulls(100, 10, 10, 10, 10, 10))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.3)
    assert Pulls(1, 2, 3, 4, 5, 6).total == 1 + 2 * 1 + 2 + 3 + 4 + 5 + 6


def test_a_step_waits_for_no_device(samples, vae):
    detail._scharr(CPU, torch.float32)  # made while a step warms up
    network, table = new_network(CONFIG, 0), prompt_table(CONFIG, 0)
    batch = ClosingBatches(samples, CPU).draw(5, strides=2)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = tuple(mode.from_tensor(tensor) for tensor in batch)
        loss = closing_loss(network, vae, table, STRIDES, fake, closing.PULLS)
        loss.backward()
        with pytest.raises(DataDependentOutputException):
            bool(loss > 0)


def train(folder, vae, sets, out, *steps):
    """The network after so many steps, in one run or continued."""
    for count in steps:
        schedule = WarmupStableDecay(count, warmup=2)
        run = ClosingRun(NAMED, schedule, count=2, learning_rate=2e-3, pulls=NOTHING)
        source = in_turn(sets, CPU)
        network = train_closing(source, STRIDES, folder, vae, out, run, device=CPU)
    return network


def test_it_learns_and_goes_on_where_it_stopped(folder, samples, vae, tmp_path, monkeypatch):
    torch.manual_seed(2)
    batch = ClosingBatches(samples, CPU).draw(24, strides=2)
    table = prompt_table(CONFIG, 0)

    def errors(network):
        """Of pictures, and of velocities that were to be kept."""
        with torch.no_grad():
            whole = float(closing_loss(network, vae, table, STRIDES, batch, NOTHING))
            *_, kept, sigma, control, prompt, velocity = batch
            found = network(
                kept, control, table.embeds[prompt], table.pooled[prompt], sigma * TIMESTEPS
            )
            moved = float((found - velocity).square().mean())
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
        lambda self, count, strides: (
            seen.append((self.side_px, count, strides)) or [torch.zeros(1)]
        ),
    )
    monkeypatch.setattr(
        closing, "closing_loss", lambda network, *_rest: next(network.parameters()).sum()
    )
    small = replace(samples, target=samples.target[:, :32, :32])
    train(folder, vae, [small, samples], tmp_path, 4)
    assert seen == [(32, 32, 2), (64, 8, 2)] * 2


def test_batches_are_of_what_the_pool_holds(samples):
    given = [samples, None, replace(samples, prompt=0 * samples.prompt)]
    newest = Newest(SimpleNamespace(newer=lambda: given.pop(0)), CPU)
    first, second, third = (newest(step) for step in range(3))
    assert first is second
    assert len(third._natural) == len(samples.prompt) > len(first._natural)


def test_a_run_that_was_stopped_gives_no_network(folder, samples, vae, tmp_path):
    run = ClosingRun(NAMED, WarmupStableDecay(9), count=2, pulls=NOTHING)
    source = in_turn([samples], CPU)
    stopped = train_closing(source, STRIDES, folder, vae, tmp_path, run, device=CPU, minutes=0)
    assert stopped is None
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
        main, "train_closing", lambda *a, **k: runs.append(a[5]) or train_it(*a, **k)
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


def test_a_gpu_trains_on_samples_that_are_made_meanwhile(command, folder, tmp_path, monkeypatch):
    """Not on shards, which would have to be there first; here on the processor."""
    compiled, pools = [], []

    def small_pool(*given, workers):
        pool = MadePool(*given, workers=0, crop_px=32, chunk=2, capacity=4, enough=2)
        pools.append((pool, workers))
        return pool

    monkeypatch.setattr(main, "_on_cpu", lambda _arguments: False)
    monkeypatch.setattr(main, "compile_blocks", compiled.append)
    monkeypatch.setattr(main, "MadePool", small_pool)
    shown = tmp_path / "shown"
    shutil.copytree(folder, shown)
    command("--from", folder, "--folder", shown, "--workers", 3)
    assert [type(network).__name__ for network in compiled] == ["DiT4SR"]
    ((pool, workers),) = pools
    assert workers == 3
    assert pool._taken_in >= 2
    file = "transformer/diffusion_pytorch_model.safetensors"
    assert (shown / file).read_bytes() != (folder / file).read_bytes()
    assert not list((tmp_path / "dit4sr-mini").glob("closing*/*"))


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
    settings = json.loads((other / "sampling.json").read_text())
    (other / "sampling.json").write_text(json.dumps(settings | {"steps": 1}))
    guided = tmp_path / "guided"
    shutil.copytree(folder, guided)
    (guided / "sampling.json").write_text(json.dumps(settings | {"guidance": 2.0}))
    for options, message in (
        (["--from", folder, folder], "closing trains one model, and --from names 2"),
        (["--from", folder, "--folder", folder], "which --folder must not change"),
        (["--from", folder, "--folder", tmp_path / "new"], f"no exported model in {tmp_path}/new"),
        (["--from", folder, "--network", "dit4sr-narrow"], "another shape than dit4sr-narrow"),
        (["--from", other], "samples in one step"),
        (["--from", guided], f"{guided} is sampled with guidance"),
    ):
        with pytest.raises(SystemExit, match=message):
            command(*options)
    assert not (tmp_path / "dit4sr-mini").exists()
