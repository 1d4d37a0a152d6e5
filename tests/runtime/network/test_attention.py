"""Attention with quantized probabilities: against its definition, row by row."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from artifacts.pack.reader import open_pack
from runtime.load import network_from_pack
from runtime.network import attention
from runtime.network.attention import (
    SoftmaxAttention,
    quantized_attention,
    set_softmax_bits,
)
from schemas.errors import PackError, UsageError
from schemas.manifest import QuantizerRecord
from tests.artifacts.make_pack import TINY, make_pack
from tests.runtime.dit4sr.oracle import Tensors, relative_error

CPU = torch.device("cpu")


def normal(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def inputs(dtype=torch.float32, *, queries=7, keys=11, size=8):
    lengths = (queries, keys, keys)
    return [normal(2, 3, n, size, seed=seed, dtype=dtype) for seed, n in enumerate(lengths)]


def by_definition(q, k, v, bits):
    """Probabilities of one row at a time, rounded to multiples of their largest over 2^b - 1."""
    q, k, v = (x.double().numpy() for x in (q, k, v))
    out = np.zeros(q.shape)
    for place in np.ndindex(q.shape[:3]):
        scores = k[place[:2]] @ q[place] / np.sqrt(q.shape[-1])
        p = np.exp(scores - scores.max())
        p /= p.sum()
        step = p.max() / (2**bits - 1)
        out[place] = np.rint(p / step) * step @ v[place[:2]]
    return out


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_it_is_what_the_definition_says(bits, dtype):
    q, k, v = inputs(dtype)
    found = quantized_attention(q, k, v, bits)
    assert found.dtype == dtype
    # No probability lies on the border of two codes, so nothing but the sums' rounding differs.
    assert relative_error(found, by_definition(q, k, v, bits)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_inputs_are_computed_in_float32_and_rounded_once(dtype):
    q, k, v = inputs(dtype)
    found = quantized_attention(q, k, v, 8)
    assert found.dtype == dtype
    assert relative_error(found, by_definition(q, k, v, 8)) < 2**-8


def test_eight_bits_are_near_none_and_two_are_not():
    q, k, v = inputs(queries=50, keys=60)
    plain = F.scaled_dot_product_attention(q, k, v)
    errors = [relative_error(quantized_attention(q, k, v, bits), plain) for bits in (8, 4, 2)]
    assert errors[0] < 1e-2 < errors[1] < errors[2]


def test_equal_probabilities_stay_equal():
    """However many keys there are: with a step of 1/255 all 4000 would become zero."""
    q, k = torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 4000, 4)
    v = normal(1, 1, 4000, 4)
    found = quantized_attention(q, k, v, 8)
    torch.testing.assert_close(found[0, 0, 0], v.mean(2)[0, 0], rtol=0, atol=1e-5)


def test_a_probability_under_half_a_step_is_zero():
    k = torch.tensor([[0.0], [6.2], [6.3]])[None, None]  # exp(-6.3) < 1/510 < exp(-6.2)
    v = torch.tensor([[0.0], [0.0], [1.0]])[None, None]
    assert quantized_attention(-torch.ones(1, 1, 1, 1), k, v, 8) == 0
    assert quantized_attention(-torch.ones(1, 1, 1, 1), k, v[:, :, [0, 2, 1]], 8) > 0


def test_large_scores_do_not_overflow():
    q, k, v = (1e4 * x for x in inputs())
    assert torch.isfinite(quantized_attention(q, k, v, 8)).all()


@pytest.mark.parametrize("largest", [1, 300, 10**9])
def test_queries_in_parts_give_the_same(monkeypatch, largest):
    q, k, v = inputs()
    whole = quantized_attention(q, k, v, 8)
    monkeypatch.setattr(attention, "LARGEST_SCORES", largest)
    torch.testing.assert_close(quantized_attention(q, k, v, 8), whole, rtol=1e-6, atol=1e-6)


def test_inputs_are_left_alone():
    tensors = inputs()
    copies = [x.clone() for x in tensors]
    quantized_attention(*tensors, 8)
    assert all(map(torch.equal, tensors, copies))


def test_it_reads_no_number_off_the_device():
    """Tensors without contents: whoever looked at one would fail. A CUDA graph can hold it."""
    q, k, v = (x.to("meta") for x in inputs())
    assert quantized_attention(q, k, v, 8).shape == q.shape


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_gives_the_same(dtype):
    q, k, v = inputs(dtype, queries=300, keys=2381, size=64)
    found = quantized_attention(q.cuda(), k.cuda(), v.cuda(), 8).cpu()
    # A few codes of ten thousand fall to the other side of a border.
    assert relative_error(found, quantized_attention(q, k, v, 8)) < 2**-8


def test_16_bits_and_unquantized_activations_leave_probabilities_as_they_are():
    attend, tensors = SoftmaxAttention(), inputs()
    plain = F.scaled_dot_product_attention(*tensors)
    assert torch.equal(attend(*tensors, quantized=True), plain)
    attend.probability_bits = 8
    assert torch.equal(attend(*tensors, quantized=False), plain)
    assert torch.equal(attend(*tensors, quantized=True), quantized_attention(*tensors, 8))


@pytest.mark.parametrize("variant", ["q", "r1"])
def test_every_attention_of_a_network_takes_its_bits(variant):
    oracle = Tensors(torch.float32)
    network = oracle.network(variant)
    names = set(network.state_dict())
    plain = network(*oracle.inputs.values(), {})
    set_softmax_bits(network, 8)
    layers = [module for module in network.modules() if isinstance(module, SoftmaxAttention)]
    assert len(layers) == 5  # three blocks, two of them with a second attention
    assert {layer.probability_bits for layer in layers} == {8}
    assert set(network.state_dict()) == names
    assert torch.equal(network(*oracle.inputs.values()), plain)  # no bits: as calibration calls it
    assert 1e-5 < relative_error(network(*oracle.inputs.values(), {}), plain) < 1e-2
    set_softmax_bits(network, 16)
    assert torch.equal(network(*oracle.inputs.values(), {}), plain)


def test_a_network_without_attention_has_no_softmax_to_quantize():
    set_softmax_bits(torch.nn.Linear(2, 2), 16)
    with pytest.raises(UsageError, match="softmax at 8 bits"):
        set_softmax_bits(torch.nn.Linear(2, 2), 8)


def quantizer(bits):
    return QuantizerRecord(weight_scale="gaussian", activation_scale="gaussian", softmax_bits=bits)


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_a_packs_softmax_bits_are_its_networks(tmp_path, backend):
    make_pack(tmp_path / "a.qpack", changes={"quantizer": quantizer(8)})
    make_pack(tmp_path / "b.qpack")
    results = {}
    for name, bits in (("a", 8), ("b", 16)):
        pack = open_pack(tmp_path / f"{name}.qpack")
        network = network_from_pack(pack, device=CPU, dtype=torch.float32, backend=backend)
        layers = [m for m in network.modules() if isinstance(m, SoftmaxAttention)]
        assert {layer.probability_bits for layer in layers} == {bits}
        latent = normal(1, TINY.in_channels, 8, 8)
        prompt = normal(1, 5, TINY.joint_attention_dim), normal(1, TINY.pooled_projection_dim)
        timestep = torch.full((1,), 500.0)
        column = pack.bit_grid.at_step(0)
        results[name] = network(latent, latent, *prompt, timestep, column)
    assert 1e-6 < relative_error(results["a"], results["b"]) < 0.3


def test_where_they_are_not_quantized_a_pack_says_nothing_of_them(tmp_path):
    make_pack(tmp_path / "a.qpack")
    make_pack(tmp_path / "b.qpack", changes={"quantizer": quantizer(16)})
    texts = [(tmp_path / f"{name}.qpack/manifest.json").read_bytes() for name in "ab"]
    assert texts[0] == texts[1]
    assert b"softmax" not in texts[0]
    assert open_pack(tmp_path / "a.qpack").manifest.quantizer.softmax_bits == 16


@pytest.mark.parametrize("value", ["4", "8.0", '"8"', "true", "null", "32"])
def test_other_softmax_bits_are_refused(tmp_path, value):
    make_pack(tmp_path / "a.qpack", changes={"quantizer": quantizer(8)})
    file = tmp_path / "a.qpack/manifest.json"
    text = file.read_text()
    assert text.count('"softmax_bits": 8') == 1
    file.write_text(text.replace('"softmax_bits": 8', f'"softmax_bits": {value}'))
    with pytest.raises(PackError, match=r"quantizer\.softmax_bits"):
        open_pack(tmp_path / "a.qpack")
