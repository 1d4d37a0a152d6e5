"""Predicted bytes against tensors made for a real network, and against the format's own table."""

import pytest
import torch

from artifacts.codec.bitpack import pack_codes
from artifacts.codec.block_shapes import block_shapes, local_budget
from artifacts.codec.layer_parts import LAYER_PARTS, LayerPart, expected_parts
from artifacts.dit4sr.config import TransformerConfig
from artifacts.dit4sr.layout import block_linears
from planner.build.network_probe import find_active_tensors
from planner.estimate.stored_bytes import checkpoint_bytes, pack_bytes
from planner.settings import BuildSettings
from planner.target import Target
from runtime.dit4sr.network import DiT4SR
from schemas.manifest import LayerRecord
from tests.architectures import dit4sr
from tests.planner.estimate.small_network import SMALL, block_linears_of

NO_FACTORS = {"global_rank": 0, "local_rank": 0}


def settings(**fields):
    return BuildSettings(Target(4, 4), **fields)


def test_checkpoint_bytes():
    published = checkpoint_bytes(dit4sr(TransformerConfig()))
    assert published.parameters == 2 * 2_716_814_144
    assert published.position_table == 452_984_832
    assert checkpoint_bytes(dit4sr(SMALL)).position_table == 2 * 16 * 16 * 192


@pytest.mark.parametrize("variant", ["q", "r1"])
def test_pack_bytes_are_those_of_the_tensors(variant):
    """Against tensors of the documented shapes and types, made for a real network."""
    network = DiT4SR(SMALL, variant)
    active = find_active_tensors(dit4sr(SMALL, variant))
    widths = [3, 4, 7]
    weight_bits, codes, scales, factors, sides = {}, 0, 0, 0, 0
    for index, (name, linear) in enumerate(block_linears_of(network).items()):
        if f"{name}.weight" not in active:
            continue
        bits = weight_bits[name] = widths[index % len(widths)]
        out_features, in_features = linear.weight.shape
        codes += pack_codes(torch.zeros(out_features, in_features, dtype=torch.uint8), bits).nbytes
        scales += torch.zeros(out_features, dtype=torch.float32).nbytes
        rank = min(200, out_features, in_features)
        factors += torch.zeros(out_features + in_features, rank, dtype=torch.bfloat16).nbytes
        sides += out_features + in_features
    plain = sum(
        parameter.bfloat16().nbytes
        for name, parameter in network.named_parameters()
        if name in active and name.removesuffix(".weight") not in weight_bits
    )

    ranks = {"global_rank": 200, "local_rank": 8}
    predicted = pack_bytes(dit4sr(SMALL), weight_bits, active, settings(**ranks))
    assert predicted.codes == codes
    assert predicted.scales == scales
    assert predicted.global_factors == factors  # rank 200 is cut to the width of 192
    assert predicted.local_factors == 2 * 8 * sides
    assert predicted.unquantized == plain
    assert predicted.rotation_signs == 192 // 8 + 768 // 8
    assert predicted.total == codes + scales + factors + 16 * sides + plain + 120

    bare = pack_bytes(
        dit4sr(SMALL), weight_bits, active, settings(**NO_FACTORS, rotation_signs=False)
    )
    assert bare.total == codes + scales + plain
    unrotated = pack_bytes(
        dit4sr(SMALL), weight_bits, active, settings(**NO_FACTORS, rotation=False)
    )
    assert unrotated == bare
    smoothed = settings(**NO_FACTORS, rotation=False, smoothing="search")
    vectors = sum(4 * block_linears(SMALL)[name].in_features for name in weight_bits)
    assert pack_bytes(dit4sr(SMALL), weight_bits, active, smoothed).scales == scales + vectors


def test_no_block_shape_exceeds_the_bound_of_the_local_factors():
    """Eq. 7 lets (out/s_o)(in/s_i)(s_o + s_i + 1) numbers through; (s_o + s_i) are stored."""
    out_features, in_features, local_rank = 768, 192, 8
    bound = 2 * local_budget(out_features, in_features, local_rank)
    stored = []
    for block in block_shapes(out_features, in_features, local_rank):
        record = LayerRecord(
            weight_bits=4, out_features=out_features, in_features=in_features, local_block=block
        )
        parts = expected_parts(record)
        stored.append(parts["local_up"].nbytes + parts["local_down"].nbytes)
    assert 0.5 * bound < max(stored) <= bound


def test_a_part_to_come_is_counted(monkeypatch):
    name = next(iter(block_linears(SMALL)))
    before = pack_bytes(dit4sr(SMALL), {name: 4}, (), settings())
    row = LayerPart("extra", "F32", "[out]", lambda record: (record.out_features,), "to come")
    monkeypatch.setitem(LAYER_PARTS, "extra", row)
    after = pack_bytes(dit4sr(SMALL), {name: 4}, (), settings())
    assert after.total - before.total == 4 * block_linears(SMALL)[name].out_features
