"""The network's training: crop sizes, samples, positions, resumption."""

import copy
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL

from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.position_table import sincos_table
from training import pairs as pairing
from training.autoencoder import new_autoencoder
from training.export import write_folder
from training.network import (
    NetworkRun,
    Sizes,
    flow_matching_loss,
    new_network,
    position_table,
    prompt_table,
    shifted_positions,
    train_network,
)
from training.networks import NETWORKS, NamedNetwork
from training.pairs import Pairs, PairShards, SizedShards
from training.prompts import PROMPTS
from training.schedule import WarmupStableDecay

CONFIG = TransformerConfig(
    sample_size=16,
    num_layers=2,
    num_attention_heads=2,
    attention_head_dim=16,
    joint_attention_dim=16,
    caption_projection_dim=32,
    pooled_projection_dim=16,
    pos_embed_max_size=32,
    dual_attention_layers=(0,),
)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(pairing, "SHARD_PIXELS", 4 * 64 * 64)
    monkeypatch.setattr(pairing, "SMALLEST_SHARD", 2)
    monkeypatch.setattr(pairing, "WINDOW", 2)


def make_run(steps):
    sizes = Sizes(small_steps=100, pixels=2 * 64 * 64)
    return NetworkRun(CONFIG, 0, WarmupStableDecay(steps), sizes, save_every=2)


def test_turns_of_every_size_count_up():
    sizes = Sizes(small_steps=10)
    seen = {64: [], 128: [], 192: []}
    for step in range(90):
        size, turn = sizes.at(step)
        seen[size].append(turn)
    assert all(turns == list(range(len(turns))) for turns in seen.values())
    assert [len(turns) for turns in seen.values()] == [50, 30, 10]


def test_samples_depend_on_the_shard_alone_and_old_ones_go(tmp_path, crops, vae):
    def shards(folder):
        return PairShards(crops, vae, 64, uses=1, folder=tmp_path / folder)

    first = shards("a")
    torch.manual_seed(0)
    batches = [first.batch(4, turn) for turn in range(3)]
    assert batches[0].target.shape == (4, 16, 16, 16)
    assert all(0 <= index < len(PROMPTS) for index in batches[0].prompt)
    assert {file.name for file in (tmp_path / "a").iterdir()} == {"pairs64-2.pt", "pairs64-3.pt"}

    later = shards("b")  # starts at the third batch
    torch.manual_seed(0)
    for _ in range(2):
        torch.randint(2 * 4, (4,))
    assert torch.equal(later.batch(4, 2).control, batches[2].control)


def test_positions_are_shifted_inside_the_tile_and_put_back():
    embedding = new_network(CONFIG, 0).pos_embed
    own, table = embedding.positions(8, 8), sincos_table(CONFIG)
    torch.manual_seed(1)
    with position_table(embedding, shifted_positions(table, latent=16, patch_size=2)):
        # The middle shows a window of the original table.
        middle = embedding.positions(8, 8).unflatten(1, (8, 8))
        assert not torch.equal(middle.flatten(1, 2), own)
        original = table.unflatten(1, (32, 32))
        found = [
            (y, x)
            for y in range(25)
            for x in range(25)
            if torch.equal(original[:, y : y + 8, x : x + 8], middle)
        ]
        assert len(found) == 1
        assert all(4 <= n <= 20 for n in found[0])
    assert torch.equal(embedding.positions(8, 8), own)


def test_the_loss_of_an_untrained_network_is_that_of_predicting_nothing():
    torch.manual_seed(0)
    target, control = torch.randn(2, 4, 16, 16, 16).unbind()
    pairs = Pairs(target, control, torch.tensor([0, 1, 2, 3]))
    loss = flow_matching_loss(new_network(CONFIG, 0), pairs, prompt_table(CONFIG, 0))
    assert loss.item() == pytest.approx(2, rel=0.1)  # the variance of noise - target


def test_an_interrupted_run_continues_to_the_same_weights(tmp_path, crops, vae):
    def train(folder, steps):
        out = tmp_path / folder
        samples = SizedShards(crops, vae, (64, 128), uses=4, folder=out / "pairs")
        return train_network(samples, out, make_run(steps), device=CPU)

    whole = train("whole", 5)
    train("cut", 3)
    resumed = train("cut", 5)
    assert resumed.step == 5
    for (name, one), other in zip(
        whole.model.named_parameters(), resumed.model.parameters(), strict=True
    ):
        assert torch.equal(one, other), name


def test_a_run_can_begin_with_an_exported_model(tmp_path, crops, vae):
    trained = new_network(CONFIG, 1)
    for parameter in trained.parameters():  # what bfloat16 holds exactly
        parameter.data = parameter.data.bfloat16().float()
    write_folder(
        NamedNetwork("small", CONFIG, 0, ""), trained, copy.deepcopy(vae), tmp_path / "model"
    )
    samples = SizedShards(crops, vae, (64,), uses=4, folder=tmp_path / "pairs")
    run = replace(make_run(0), start=tmp_path / "model")
    begun = train_network(samples, tmp_path, run, device=CPU).model
    for (name, one), other in zip(trained.named_parameters(), begun.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_the_networks_fit_their_files():
    """24 MB with the autoencoder for the bundled one, 8 MB without it for the other."""
    vae_bytes = 2 * sum(p.numel() for p in AutoencoderKL.parameters(new_autoencoder()))
    sizes = {
        name: 2 * sum(p.numel() for p in new_network(named.config, 0).parameters())
        for name, named in NETWORKS.items()
    }
    assert sizes["dit4sr-mini"] + vae_bytes <= 24e6
    assert sizes["dit4sr-narrow"] <= 8e6
