"""Both accounts of a finished pack, against sums by hand and against the estimate."""

import dataclasses

import pytest

from artifacts.pack.reader import open_pack
from planner.estimate.estimate import estimate
from planner.estimate.result import ImageSettings
from planner.inspect.layer_bytes import factor_numbers
from planner.report.accounts import pack_accounts
from planner.settings import BuildSettings
from planner.target import Target
from schemas.bit_grid import BitGrid, LayerBits
from tests.artifacts.make_pack import PROMPT_TOKENS, make_pack

KEPT = "transformer_blocks.0.ff.net.2"


@pytest.fixture
def pack(tmp_path):
    make_pack(tmp_path / "m.qpack", unquantized=(KEPT,))
    return open_pack(tmp_path / "m.qpack")


def test_operations_are_the_sum_over_layers(pack):
    found = pack_accounts(pack)
    assert (found.steps, found.side_px, found.text_tokens) == (4, 64, PROMPT_TOKENS)
    # 64 px are 8 latent pixels of the published autoencoder, 4 patches, along a side.
    streams = {"image": 16, "control": 16, "text": PROMPT_TOKENS}
    products = 0
    for name, record in pack.manifest.layers.items():
        tokens = pack.architecture.family.tokens_through(name, streams)
        bits = pack.bit_grid.layers[name]
        mean = sum(bits.activation_bits) / len(bits.activation_bits)
        products += tokens * record.out_features * record.in_features * bits.weight_bits * mean
        products += tokens * factor_numbers(record) * 16 * 16
    assert found.true_linear_operations == pytest.approx(2 * 4 * products / 1024)


def test_a_layer_in_16_bits_has_no_factors(pack):
    assert factor_numbers(pack.manifest.layers[KEPT]) == 0
    other = pack.manifest.layers["transformer_blocks.0.norm1.linear"]  # 192 x 32, rank 2, 4 x 4
    assert factor_numbers(other) == 2 * (288 + 32) + 288 * 32 // 16 * (4 + 4)


@pytest.mark.parametrize("modulation", ["weights", "table"])
def test_the_papers_account_is_that_of_the_estimate(tmp_path, modulation):
    make_pack(tmp_path / "m.qpack", modulation=modulation)
    pack = open_pack(tmp_path / "m.qpack")
    reached = pack.manifest.reached
    settings = BuildSettings(
        target=Target(reached.weight_bits, reached.activation_bits),
        global_rank=2,
        local_rank=1,
        modulation=modulation,
    )
    recipe = pack.manifest.recipe.model_copy(
        update={"settings": {"global_rank": 2, "local_rank": 1}}
    )
    manifest = pack.manifest.model_copy(update={"recipe": recipe})
    found = pack_accounts(dataclasses.replace(pack, manifest=manifest))
    image = ImageSettings(steps=4, resolution_px=64, text_tokens=PROMPT_TOKENS)
    expected = estimate(pack.architecture, settings, image)
    assert found.full_parameters == expected.full_precision.paper_parameters
    assert found.full_linear_operations == expected.full_precision.paper_operations
    assert found.paper_operations == pytest.approx(expected.own.paper_operations)
    assert found.attention_operations == expected.own.attention_operations
    # A file has a header beside its table.
    assert found.paper_parameters == pytest.approx(expected.own.paper_parameters, rel=0.02)


def test_a_pack_that_names_no_ranks_counts_its_largest(pack):
    without = pack.manifest.recipe.model_copy(update={"settings": {"global_rank": True}})
    manifest = pack.manifest.model_copy(update={"recipe": without})
    named = pack.manifest.recipe.model_copy(
        update={"settings": {"global_rank": 3, "local_rank": 0}}
    )
    same = pack.manifest.model_copy(update={"recipe": named})
    counted = [
        pack_accounts(dataclasses.replace(pack, manifest=m)).paper_operations
        for m in (manifest, same)
    ]
    assert counted[0] == counted[1]


def test_bits_of_the_grid_decide(pack):
    fewer = {
        name: LayerBits(
            weight_bits=bits.weight_bits,
            activation_bits=bits.activation_bits if name == KEPT else (2,) * 3,
        )
        for name, bits in pack.bit_grid.layers.items()
    }
    grid = BitGrid(target=pack.bit_grid.target, timesteps=pack.bit_grid.timesteps, layers=fewer)
    less = pack_accounts(dataclasses.replace(pack, bit_grid=grid))
    assert less.true_linear_operations < pack_accounts(pack).true_linear_operations
