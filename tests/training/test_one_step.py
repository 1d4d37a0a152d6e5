"""A network that restores in one evaluation: its loss, its training, and what it becomes."""

from functools import partial

import pytest
import torch

from runtime.load import load_full_precision
from runtime.upscale import upscale
from tests.training.test_network import CONFIG
from training.export import write_folder
from training.network import NetworkRun, Sizes, new_network, prompt_table, train_network
from training.networks import NamedNetwork
from training.one_step import one_step_loss, picture_loss, restore, structural_similarity
from training.pairs import Pairs
from training.schedule import WarmupStableDecay

CPU = torch.device("cpu")
SIGMA = 0.3
NAMED = NamedNetwork("tiny", CONFIG, 0, "A test.", start_sigma=SIGMA)


class FixedSamples:
    """The same pair again and again: a blurred latent, and the one it came from."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.target = torch.randn(1, 16, 8, 8, generator=generator)
        self.control = 0.5 * self.target

    def batch(self, size_px, count, turn):
        return Pairs(
            self.target.repeat(count, 1, 1, 1),
            self.control.repeat(count, 1, 1, 1),
            torch.zeros(count, dtype=torch.long),
        )


def make_run(steps):
    schedule = WarmupStableDecay(steps, warmup=2)
    return NetworkRun(CONFIG, 0, schedule, Sizes(small_steps=1000, pixels=4096))


def test_one_evaluation_is_the_whole_way_to_the_image(vae):
    network = new_network(CONFIG, 0)
    samples = FixedSamples().batch(64, 2, 0)
    torch.manual_seed(1)
    found = restore(network, samples, prompt_table(CONFIG, 0), SIGMA)
    torch.manual_seed(1)
    noise = torch.randn_like(samples.control)
    # Every residual branch of a new network starts closed, and its velocity is its bias, 0.
    torch.testing.assert_close(found, torch.lerp(samples.control, noise, SIGMA))


def test_training_lowers_the_error_and_goes_on_where_it_stopped(tmp_path, vae):
    def error(training):
        torch.manual_seed(5)
        samples = FixedSamples().batch(64, 4, 0)
        with torch.no_grad():
            found = restore(training.model, samples, prompt_table(CONFIG, 0), SIGMA)
        return float((found - samples.target).square().mean())

    def train(name, steps):
        loss = partial(one_step_loss, vae, SIGMA)
        out = tmp_path / name
        return train_network(FixedSamples(), out, make_run(steps), device=CPU, loss=loss)

    whole = train("whole", 30)
    assert error(whole) < 0.97 * error(train("untrained", 0))
    train("stopped", 5)
    resumed = train("stopped", 30)
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_structure_is_one_for_equal_pictures_and_falls_with_blur():
    picture = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(picture, 3, stride=1, padding=1)
    assert float(structural_similarity(picture, picture)) == pytest.approx(1)
    assert float(structural_similarity(picture, blurred)) < 0.5
    assert float(picture_loss(picture, picture)) == pytest.approx(0, abs=1e-6)
    assert float(picture_loss(blurred, picture)) > 0.1


def test_the_exported_model_begins_under_its_noise_and_takes_one_step(tmp_path, vae):
    write_folder(NAMED, new_network(CONFIG, 0), vae, tmp_path / "model", dtype=torch.float32)
    pipeline = load_full_precision(tmp_path / "model", device=CPU, dtype=torch.float32)
    assert (pipeline.sampling.steps, pipeline.sampling.start_sigma) == (1, SIGMA)
    steps = []
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    result = upscale(
        pipeline, picture, pipeline.sampling, progress=lambda done, of: steps.append((done, of))
    )
    assert result.shape == (1, 3, 64, 64)
    assert set(steps) == {(1, 1)}
