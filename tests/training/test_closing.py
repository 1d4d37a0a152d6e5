"""A network's closing step, trained by the picture that comes of it."""

import pytest
import torch
from safetensors.torch import load_file
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from tests.training.test_network import CONFIG
from training import __main__ as main
from training import closing, detail, pulls
from training.autoencoder import decode
from training.closing import ClosingBatches, ClosingRun, closing_loss, earlier_of, train_closing
from training.closing_states import ClosingStates
from training.network import TIMESTEPS, load_exported, new_network, prompt_table
from training.networks import NamedNetwork
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


def test_states_are_those_of_the_networks_own_sampling(folder, vae):
    network = TrainedNetwork.load(folder, CPU)
    pictures = torch.randint(256, (3, 32, 32, 3), dtype=torch.uint8)
    prompt = torch.tensor([0, 1, 0])
    torch.manual_seed(4)
    made = ClosingStates.make(vae, network, pictures, pictures, prompt)
    control = made.control.float()
    torch.manual_seed(4)
    steps = list(network.steps(control, prompt))
    sigmas = [step.sigma for step in steps]
    assert sigmas[-1] < 0.02 < sigmas[-2] == pytest.approx(0.338, abs=1e-3)
    torch.testing.assert_close(made.sigma, torch.full((3,), sigmas[-2]))
    torch.testing.assert_close(made.latent, steps[-2].latent.bfloat16(), atol=0.05, rtol=0.02)
    for row, sigma in enumerate(made.earlier_sigma.tolist()):
        step = steps[:-2][[round(s, 4) for s in sigmas].index(round(sigma, 4))]
        for name, of in (("earlier", "latent"), ("earlier_velocity", "velocity")):
            found, wanted = getattr(made, name)[row].float(), getattr(step, of)[row]
            torch.testing.assert_close(found, wanted, atol=0.05, rtol=0.02)


def test_a_network_of_one_step_has_no_closing_step(folder, vae):
    network = TrainedNetwork.load(folder, CPU)
    settings = network.settings.override(patch_size=2, steps=1)
    short = TrainedNetwork(network.network, network.prompts, settings)
    pictures = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match="one step"):
        ClosingStates.make(vae, short, pictures, pictures, torch.tensor([0]))


def numbered(count):
    """Samples in which everything of sample n is n, earlier steps' things 100 more."""
    numbers = torch.arange(float(count))
    latents = numbers.view(-1, 1, 1, 1).expand(-1, 16, 8, 8)
    return ClosingStates(
        latent=latents.bfloat16(),
        sigma=numbers,
        earlier=(latents + 100).bfloat16(),
        earlier_sigma=numbers + 100,
        earlier_velocity=(latents + 100).bfloat16(),
        control=latents.bfloat16(),
        target=numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 32, 32, 3),
        prompt=torch.arange(count) % len(NAMES),
    )


def test_what_lies_in_a_batch_belongs_together():
    torch.manual_seed(0)
    batch = ClosingBatches(numbered(8), CPU).draw(10)
    latent, sigma, control, prompt, images, detailed, kept = batch
    assert earlier_of(10) == 2
    assert len(images) == 8
    number = control[:, 0, 0, 0]
    assert len(set(number.tolist())) > 3
    torch.testing.assert_close(latent[:, 0, 0, 0], number + torch.tensor([0.0] * 8 + [100.0] * 2))
    torch.testing.assert_close(sigma, latent[:, 0, 0, 0])
    torch.testing.assert_close(kept[:, 0, 0, 0], number[8:] + 100)
    torch.testing.assert_close((images[:, 0, 0, 0] + 1) * 127.5, number[:8], atol=1e-3, rtol=0)
    assert torch.equal(prompt, number.long() % len(NAMES))
    wanting = torch.tensor([NAMES.index(name) for name in ("natural", "sharp")])
    assert torch.equal(detailed, torch.isin(prompt[:8], wanting))


def test_the_way_to_the_image_is_judged_and_what_earlier_steps_found(samples, vae):
    """A network that goes straight to known images makes no error but that of their pictures."""
    torch.manual_seed(1)
    latent, sigma, control, prompt, _, detailed, kept = ClosingBatches(samples, CPU).draw(5)
    image = 0.5 * latent[:4] + 0.1
    pictures = decode(vae, image)
    told = []

    def network(given, _control, embeds, _pooled, timestep):
        told.append((timestep, embeds))
        way = (given[:4] - image) / sigma[:4, None, None, None]
        return torch.cat([way, kept + 0.5])

    table = prompt_table(CONFIG, 0)
    batch = latent, sigma, control, prompt, pictures, detailed, kept
    loss = closing_loss(network, vae, table, batch, NOTHING)
    assert float(loss) == pytest.approx(closing.EARLIER_WEIGHT * 0.25, rel=1e-3)
    torch.testing.assert_close(told[0][0], sigma * TIMESTEPS)
    torch.testing.assert_close(told[0][1], table.embeds[prompt])
    darker = latent, sigma, control, prompt, pictures - 0.2, detailed, kept
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


def test_it_learns_and_goes_on_where_it_stopped(folder, samples, vae, tmp_path, monkeypatch):
    torch.manual_seed(2)
    latent, sigma, control, prompt, images, detailed, kept = ClosingBatches(samples, CPU).draw(24)
    table = prompt_table(CONFIG, 0)

    def errors(network):
        """Of pictures, and of earlier steps' velocities."""
        batch = latent, sigma, control, prompt, images, torch.zeros_like(detailed), kept
        with torch.no_grad():
            whole = float(closing_loss(network, vae, table, batch, NOTHING))
            found = network(
                latent, control, table.embeds[prompt], table.pooled[prompt], sigma * TIMESTEPS
            )
            moved = float((found[len(images) :] - kept).square().mean())
        return whole - closing.EARLIER_WEIGHT * moved, moved

    def train(name, *steps):
        for count in steps:
            schedule = WarmupStableDecay(count, warmup=2)
            run = ClosingRun(NAMED, schedule, count=2, learning_rate=2e-3, pulls=NOTHING)
            network = train_closing([samples], folder, vae, tmp_path / name, run, device=CPU)
        return network

    untrained = new_network(CONFIG, 0)
    load_exported(untrained, folder)
    before, whole = errors(untrained), train("whole", 30)
    after = errors(whole)
    assert after[0] < 0.9 * before[0]
    for a, b in zip(whole.parameters(), train("prolonged", 11, 30).parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(p.grad is None for p in vae.parameters())
    monkeypatch.setattr(closing, "EARLIER_WEIGHT", 0.0)
    assert after[1] < 0.5 * errors(train("free", 30))[1]


def test_a_run_that_was_stopped_gives_no_network(folder, samples, vae, tmp_path):
    run = ClosingRun(NAMED, WarmupStableDecay(9), count=2, pulls=NOTHING)
    assert train_closing([samples], folder, vae, tmp_path, run, device=CPU, minutes=0) is None
    assert (tmp_path / "closing.pt").exists()


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


def test_the_command_writes_the_networks_weights(command, folder, tmp_path):
    shown = tmp_path / "shown"
    (shown / "transformer").mkdir(parents=True)
    command("--from", folder, "--folder", shown, "--pull", "detail=2")
    file = "transformer/diffusion_pytorch_model.safetensors"
    found, before = (load_file(model / file) for model in (shown, folder))
    assert found.keys() == before.keys()
    moved = [name for name, tensor in found.items() if not torch.equal(tensor, before[name])]
    assert moved
    assert all(tensor.dtype == torch.bfloat16 for tensor in found.values())
    own = tmp_path / "dit4sr-mini"
    assert [len(list((own / f"closing{px}").iterdir())) for px in (32, 64)] == [1, 1]


def test_a_missing_model_is_named(command, tmp_path):
    for options, missing in (([], "exported/dit4sr-mini"), (["--from", tmp_path / "no"], "no")):
        with pytest.raises(SystemExit, match=f"no exported model in {tmp_path / missing}: name"):
            command(*options)


def test_one_model_is_trained_at_a_time(command, folder):
    with pytest.raises(SystemExit, match="closing trains one model, and --from names 2"):
        command("--from", folder, folder)
