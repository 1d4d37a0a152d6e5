"""A layer that learns begins as a pack has it, and ends as a pack can have it."""

from dataclasses import replace

import pytest
import torch

from artifacts.codec.bitpack import pack_codes
from artifacts.codec.gaussian_quantizer import dequantize_rows, quantize_rows
from planner.learned.linear import FOLDED_PARTS, LEARNED_PARTS, LearnedLinear
from planner.learned.plan import DEFAULT_PARTS
from planner.learned.timed_bits import TimedBits
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
    "balanced": {"global_rank": 4, "local_rank": 2, "smoothing": "balance"},
    "smoothed": {"global_rank": 4, "local_rank": 0, "rotation": False, "smoothing": "search"},
}


def make_weight():
    generator = torch.Generator().manual_seed(0)
    return 0.05 * torch.randn(OUT, IN, generator=generator), torch.randn(OUT, generator=generator)


ROUNDED = ("adaround", "steps", "bounds")
"""What AdaRound goes with."""


def make(kind, bits=4, parts=DEFAULT_PARTS):
    weight, bias = make_weight()
    channels = ChannelStatistics(
        maximum=tuple(1.0 + index % 7 for index in range(IN)),
        mean_square=tuple(0.5 + index % 3 for index in range(IN)),
    )
    settings = BuildSettings(parse_target("W4A4"), **KINDS[kind])
    vector = torch.linspace(0.5, 2, IN) if settings.balances else None
    start = quantize_layer(
        "a.b", weight, bias.bfloat16(), bits, settings, channels, smoothing=vector
    ).weight
    layer = LearnedLinear(
        start, weight, bias.bfloat16(), "gaussian", parts=parts, update_rank=4, seed=1, steps=3
    )
    return start, layer


def inputs():
    return torch.randn(2, TOKENS, IN, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("activation_bits", [2, 4, 8, 16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["steps", "weights", "adaround", "timestep-bounds", "transform"])
def test_it_begins_as_the_reference_computes_the_pack(kind, activation_bits, part):
    start, layer = make(kind, parts=(part,))
    expected = ReferenceLinear(start, "gaussian")(inputs(), activation_bits)
    torch.testing.assert_close(layer(inputs(), activation_bits), expected, rtol=1e-4, atol=1e-4)


def test_inactive_it_is_the_layer_that_it_was():
    _, layer = make("rotated")
    weight, bias = make_weight()
    layer.active = False
    expected = torch.nn.functional.linear(inputs(), weight, bias.bfloat16().float())
    assert torch.equal(layer(inputs(), 4), expected)


@pytest.mark.parametrize("parts", [DEFAULT_PARTS, ROUNDED, ("weights",)])
@pytest.mark.parametrize("kind", ["rotated", "no-factors", "balanced", "smoothed"])
def test_without_having_learned_it_is_the_pack_to_the_bit(kind, parts):
    start, layer = make(kind, parts=parts)
    folded = layer.folded()
    for part, tensor in start.parts().items():
        other = folded.parts()[part]
        assert (tensor is None) == (other is None), part
        if tensor is not None:
            assert torch.equal(tensor, other), part


@pytest.mark.parametrize("parts", [DEFAULT_PARTS, ROUNDED])
def test_codes_that_are_not_the_nearest_are_where_it_begins(parts):
    plain, _ = make("rotated")
    moved = plain.unpacked_codes().clone()
    moved[::3, ::2] = (moved[::3, ::2] + 1).clamp(max=15)
    start = replace(plain, codes=pack_codes(moved, 4))
    weight, bias = make_weight()
    layer = LearnedLinear(
        start, weight, bias.bfloat16(), "gaussian", parts=parts, update_rank=4, seed=1
    )
    expected = ReferenceLinear(start, "gaussian")(inputs(), 4)
    torch.testing.assert_close(layer(inputs(), 4), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(layer.folded().codes, start.codes)
    assert make("rotated")[1].nudge is None


def disturb(layer):
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for trainable in layer.trainables():
            noise = torch.randn(trainable.tensor.shape, generator=generator)
            trainable.tensor.add_(0.1 * trainable.unit * noise)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("parts", [DEFAULT_PARTS, ROUNDED, ("weights",)])
@pytest.mark.parametrize("kind", KINDS)
def test_what_it_learned_is_what_the_pack_computes(kind, bits, parts):
    _, layer = make(kind, bits, parts)
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
    layer.train()
    (layer(inputs(), 4).square().sum()).backward()
    trainables = list(layer.trainables())
    assert {t.part for t in trainables} == {part}
    # The update's second matrix has none as long as its first is 0.
    assert any(bool(t.tensor.grad.abs().sum() > 0) for t in trainables)
    others = set(layer.parameters()) - {t.tensor for t in trainables}
    assert not any(p.requires_grad for p in others)


def test_frozen_it_computes_the_same():
    _, layer = make("smoothed")
    expected = layer(inputs(), 4)
    layer.frozen = layer.quantized().detach()
    assert torch.equal(layer(inputs(), 4), expected)


def test_a_bound_of_a_timestep_is_of_that_timestep_alone():
    _, layer = make("no-factors", parts=("timestep-bounds",))
    before = [layer(inputs(), TimedBits(4, step)) for step in range(3)]
    with torch.no_grad():
        layer.tokens.log_bound[1] = -0.5
    after = [layer(inputs(), TimedBits(4, step)) for step in range(3)]
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_groups_are_rows_of_their_own():
    start, layer = make("no-factors")
    layer.group = 8
    expected = start.rotation.apply(layer.weight, start.signs).reshape(-1, 8)
    codes, scale = quantize_rows(expected, 4, "absmax")
    rows = dequantize_rows(codes, scale, 4).reshape(OUT, IN)
    torch.testing.assert_close(layer.quantized(), rows, rtol=1e-5, atol=1e-6)


def test_a_map_of_inputs_undoes_itself_where_nothing_is_rounded():
    _, layer = make("rotated", bits=8, parts=("transform",))
    with torch.no_grad():
        before = layer(inputs(), 16)
        disturb(layer)
        assert float((layer(inputs(), 16) - before).norm() / before.norm()) < 0.02


@pytest.mark.parametrize("part", [part for part in LEARNED_PARTS if part not in FOLDED_PARTS])
def test_what_no_pack_holds_is_not_folded(part):
    _, layer = make("rotated", parts=("steps", part))
    with pytest.raises(ValueError, match=part):
        layer.folded()
