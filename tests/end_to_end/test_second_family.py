"""A family that nobody thought of: from its checkpoint to a pack to a forward pass."""

import pytest
import torch
from safetensors.torch import save_file

from artifacts import family as families
from artifacts.checkpoint.reader import open_checkpoint
from artifacts.pack.reader import open_pack, verify_pack
from planner.build.base_model import find_base_model
from planner.build.build import build
from planner.build.network_probe import check_network
from planner.settings import BuildSettings
from planner.target import Target
from runtime.load import network_from_checkpoint, network_from_pack
from schemas.errors import CheckpointError, UsageError
from tests.toy_family import family as toy

CPU = torch.device("cpu")
CONFIG = toy.ToyConfig(channels=16, width=64)
SETTINGS = BuildSettings(Target(8, 8), global_rank=2, local_rank=1)


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setattr(families, "_MODULES", dict(families._MODULES))  # undone after the test
    families.register("toy", "tests.toy_family.family")


@pytest.fixture
def checkpoint(tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(shape, generator=generator) * 0.2
        for name, shape in toy.tensor_shapes(CONFIG).items()
    }
    save_file(state, tmp_path / "toy.safetensors")
    return open_checkpoint(tmp_path / "toy.safetensors")


def inputs():
    generator = torch.Generator().manual_seed(1)
    noisy, control = torch.randn(2, 1, 16, 6, 4, generator=generator)
    return noisy, control, torch.zeros(1, 1, 4), torch.zeros(1, 4), torch.zeros(1)


def test_its_checkpoint_is_recognised(checkpoint):
    assert (checkpoint.family.name, checkpoint.config) == ("toy", CONFIG)
    assert checkpoint.architecture().variant == "plain"
    with pytest.raises(UsageError, match="no variant 'q' of Toy"):
        checkpoint.architecture("q")


@pytest.mark.parametrize("variant", [None, "loud"])
def test_from_checkpoint_to_pack_to_forward_pass(checkpoint, tmp_path, variant):
    output = tmp_path / "toy.qpack"
    base = find_base_model(checkpoint, None)
    settings = BuildSettings(Target(8, 8), variant=variant, global_rank=2, local_rank=1)
    result = build(checkpoint, output, settings, base)

    manifest = result.manifest
    assert (manifest.model.family, manifest.model.variant) == ("toy", variant or "plain")
    assert manifest.model.config == {"channels": 16, "width": 64}
    assert manifest.omitted == ("unused.weight",)
    assert manifest.sampling == toy.FAMILY.sampling
    check_network(verify_pack(output).manifest)
    assert "two layers of width 64" in (output / "README.md").read_text()

    pack = open_pack(output)
    assert pack.layer_names == list(toy.LAYERS)
    quantized = network_from_pack(pack, device=CPU, dtype=torch.float32, backend="reference")
    plain = network_from_checkpoint(checkpoint, variant, device=CPU, dtype=torch.float32)
    with torch.inference_mode():
        expected = plain(*inputs())
        got = quantized(*inputs(), pack.bit_grid.at_step(0))
    noise = (got - expected).square().mean() / expected.square().mean()
    assert got.shape == expected.shape
    # Two layers of 8 bits for weights and activations: four errors of kappa(8), -40.6 dB each.
    assert 0 < noise < 10 ** (-30 / 10)


def test_neither_is_taken_for_the_other(checkpoint, tmp_path):
    state = {"expand.weight": torch.zeros(4, 4)}
    save_file(state, tmp_path / "half.safetensors")
    with pytest.raises(CheckpointError, match=r"not a Toy transformer: it lacks contract\.weight"):
        open_checkpoint(tmp_path / "half.safetensors")
