"""A layer that learns begins as a pack has it, and ends as a pack can have it."""

import pytest
import torch

from planner.learned.linear import LEARNED_PARTS, LearnedLinear
from planner.settings import BuildSettings
from planner.target import parse_target
from planner.weights.layer import quantize_layer
from runtime.backends.reference import ReferenceLinear
from schemas.calibration import ChannelStatistics

OUT, IN, TOKENS = 48, 96, 10
KINDS = {
    "rotated": {"global_rank": 4, "local_rank": 2},
    "eight-bit-factors": {"global_rank": 4, "local_rank": 2, "factor_bits": 8},
    "no-factors": {"global_rank": 0, "local_rank": 0},
    "smoothed": {"global_rank": 4, "local_rank": 0, "rotation": False, "smoothing": True},
}


def make_weight():
    generator = torch.Generator().manual_seed(0)
    return 0.05 * torch.randn(OUT, IN, generator=generator), torch.randn(OUT, generator=generator)


def make(kind, bits=4, parts=LEARNED_PARTS):
    weight, bias = make_weight()
    channels = ChannelStatistics(
        maximum=tuple(1.0 + index % 7 for index in range(IN)),
        mean_square=tuple(0.5 + index % 3 for index in range(IN)),
    )
    settings = BuildSettings(parse_target("W4A4"), **KINDS[kind])
    start = quantize_layer("a.b", weight, bias.bfloat16(), bits, settings, channels).weight
    layer = LearnedLinear(
        start, weight, bias.bfloat16(), "gaussian", parts=parts, update_rank=4, seed=1
    )
    return start, layer


def inputs():
    return torch.randn(2, TOKENS, IN, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("activation_bits", [2, 4, 8, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_as_the_reference_computes_the_pack(kind, activation_bits):
    start, layer = make(kind)
    expected = ReferenceLinear(start, "gaussian")(inputs(), activation_bits)
    torch.testing.assert_close(layer(inputs(), activation_bits), expected, rtol=1e-4, atol=1e-4)


def test_inactive_it_is_the_layer_that_it_was():
    _, layer = make("rotated")
    weight, bias = make_weight()
    layer.active = False
    expected = torch.nn.functional.linear(inputs(), weight, bias.bfloat16().float())
    assert torch.equal(layer(inputs(), 4), expected)


@pytest.mark.parametrize("kind", ["rotated", "no-factors", "smoothed"])
def test_without_having_learned_it_is_the_pack_to_the_bit(kind):
    start, layer = make(kind)
    folded = layer.folded()
    for part, tensor in start.parts().items():
        other = folded.parts()[part]
        assert (tensor is None) == (other is None), part
        if tensor is not None:
            assert torch.equal(tensor, other), part


def disturb(layer):
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for trainable in layer.trainables():
            noise = torch.randn(trainable.tensor.shape, generator=generator)
            trainable.tensor.add_(0.1 * trainable.unit * noise)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_what_it_learned_is_what_the_pack_computes(kind, bits):
    _, layer = make(kind, bits)
    disturb(layer)
    with torch.no_grad():
        simulated = layer(inputs(), 4)
    found = ReferenceLinear(layer.folded(), "gaussian")(inputs(), 4)
    error = float((found - simulated).norm() / simulated.norm())
    # 8-bit factors round, and the codes take most of that up again; a code on a border may fall
    # to either side.
    assert error < (0.02 if kind == "eight-bit-factors" else 2e-3)


@pytest.mark.parametrize("part", LEARNED_PARTS)
def test_each_part_gets_a_gradient_when_it_learns_and_only_then(part):
    _, layer = make("smoothed", parts=(part,))
    (layer(inputs(), 4).square().sum()).backward()
    trainables = list(layer.trainables())
    assert {t.part for t in trainables} == {part}
    # The update's second matrix has none as long as its first is 0.
    assert any(bool(t.tensor.grad.abs().sum() > 0) for t in trainables)
    others = set(layer.parameters()) - {t.tensor for t in trainables}
    assert not any(p.requires_grad for p in others)
