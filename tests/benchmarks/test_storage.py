"""Stored bits per weight, counted by hand; the peer by its own tensors."""

import pytest
import torch

from benchmarks.quality.storage import stored_bits_per_weight
from schemas.manifest import LayerRecord


def record(**fields):
    return LayerRecord(in_features=96, out_features=64, **fields)


def test_codes_scales_factors_and_smoothing_are_counted():
    plain = stored_bits_per_weight({"a": record(weight_bits=4)})
    assert plain == pytest.approx(4 + 32 / 96)
    # Three bits are a plane of two and one of one; 96 inputs fill whole 32-bit words.
    assert stored_bits_per_weight({"a": record(weight_bits=3)}) == pytest.approx(3 + 32 / 96)
    factors = stored_bits_per_weight({"a": record(weight_bits=4, global_rank=5)})
    assert factors - plain == pytest.approx(16 * 5 * (96 + 64) / (96 * 64))
    local = stored_bits_per_weight({"a": record(weight_bits=4, local_block=(32, 48))})
    assert local - plain == pytest.approx(16 * 4 * (32 + 48) / (96 * 64))
    smoothed = stored_bits_per_weight({"a": record(weight_bits=4, smoothing=True)})
    assert smoothed - plain == pytest.approx(32 * 96 / (96 * 64))


def test_layers_weigh_by_their_parameters_and_kept_ones_not_at_all():
    layers = {
        "a": record(weight_bits=2),
        "b": LayerRecord(in_features=96, out_features=192, weight_bits=6),
        "c": record(weight_bits=16),
    }
    assert stored_bits_per_weight(layers) == pytest.approx((1 * 2 + 3 * 6) / 4 + 32 / 96)


@pytest.mark.filterwarnings("default")  # a library of others
def test_the_peer_is_counted_as_it_stores():
    pytest.importorskip("sdnq")
    from benchmarks.quality.peer import apply_sdnq, is_available, sdnq_version

    assert is_available()
    assert sdnq_version()
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Linear(192, 128), torch.nn.Linear(128, 192))
    network.requires_grad_(False)
    x = torch.randn(5, 192)
    expected = network(x)
    settings = {"weights_dtype": "int4", "use_svd": True, "svd_rank": 4, "use_hadamard": True}
    storage = apply_sdnq(network, ["0", "1"], settings)
    factors = 2 * 16 * 4 * (192 + 128)
    scales = 32 * (128 + 192)  # one per output channel
    assert storage.groups == (128, 192)
    assert storage.bits_per_weight == pytest.approx(4 + (factors + scales) / (2 * 192 * 128))
    error = float((network(x) - expected).norm() / expected.norm())
    assert 1e-4 < error < 0.3
