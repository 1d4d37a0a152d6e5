"""Layers that read one input share what they do to it, with the results of separate calls."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from artifacts.codec.layer_parts import LAYER_PARTS, LayerPart
from artifacts.codec.quantized_weight import QuantizedWeight
from runtime.backends import BACKENDS
from runtime.network.projection import QuantizableLinear, project, project_all
from schemas.errors import UsageError
from schemas.manifest import QuantizerRecord
from tests.artifacts.make_pack import random_weight

GAUSSIAN = QuantizerRecord(weight_scale="gaussian", activation_scale="gaussian")
AVAILABLE = [name for name, b in BACKENDS.items() if not b.missing(torch.device("cpu"))]


def make_layer(backend, name, *, quantizer=GAUSSIAN, seed=0, **changes):
    weight = replace(random_weight(name, 24, 96, seed=seed), **changes)
    return BACKENDS[backend].make_layer(weight, quantizer)


def make_layers(backend):
    return [make_layer(backend, name, seed=seed) for seed, name in enumerate("qkv")]


@pytest.fixture
def prepared(monkeypatch):
    """Names of the layers that were asked to prepare an input, in order."""
    names = []
    for owner in {type(make_layer(name, "any")) for name in AVAILABLE}:

        def counting(self, x, bits, original=owner.prepare):
            names.append(self.name)
            return original(self, x, bits)

        monkeypatch.setattr(owner, "prepare", counting)
    return names


@pytest.mark.parametrize("backend", AVAILABLE)
@pytest.mark.parametrize("width", [1, 4, 8, 16])
@pytest.mark.parametrize("batch", [1, 2])
def test_shared_results_are_those_of_separate_calls(backend, width, batch, prepared):
    layers = make_layers(backend)
    bits = dict.fromkeys("qkv", width)
    x = torch.randn(batch, 10, 96, generator=torch.Generator().manual_seed(width))
    together = project_all(layers, x, bits)
    assert prepared == ["q"]
    for layer, y in zip(layers, together, strict=True):
        assert torch.equal(y, project(layer, x, bits))


@pytest.mark.parametrize("backend", AVAILABLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_may_read_the_first_tokens_only(backend, dtype, prepared):
    layers = make_layers(backend)
    bits = dict.fromkeys("qkv", 4)
    x = torch.randn(2, 10, 96, generator=torch.Generator().manual_seed(1)).to(dtype)
    q, k, v = project_all(layers, x, bits, first=(None, 5, None))
    assert prepared == ["q"]
    assert torch.equal(k, project(layers[1], x[:, :5], bits))
    assert torch.equal(q, project(layers[0], x, bits))
    assert torch.equal(v, project(layers[2], x, bits))


@pytest.mark.parametrize("backend", AVAILABLE)
@pytest.mark.parametrize(
    "changes",
    [{"signs": None}, {"signs": -torch.ones(96)}, {"smoothing": torch.full((96,), 2.0)}],
)
def test_layers_that_treat_their_input_otherwise_do_not_share(backend, changes, prepared):
    layers = [make_layer(backend, "a"), make_layer(backend, "b", **changes)]
    x = torch.randn(3, 96, generator=torch.Generator().manual_seed(2))
    bits = {"a": 4, "b": 4}
    ys = project_all(layers, x, bits)
    assert prepared == ["a", "b"]
    for layer, y in zip(layers, ys, strict=True):
        assert torch.equal(y, project(layer, x, bits))


@pytest.mark.parametrize("backend", AVAILABLE)
def test_other_bits_or_another_scale_rule_are_not_shared(backend, prepared):
    absmax = GAUSSIAN.model_copy(update={"activation_scale": "absmax"})
    layers = [
        make_layer(backend, "a"),
        make_layer(backend, "b", quantizer=absmax),
        make_layer(backend, "c"),
        make_layer(backend, "d"),
    ]
    project_all(layers, torch.randn(3, 96), {"a": 4, "b": 4, "c": 5, "d": 4})
    assert prepared == ["a", "b", "c"]  # d takes a's


@pytest.mark.parametrize("backend", AVAILABLE)
@pytest.mark.parametrize("pre", [True, False])
def test_a_watched_layer_is_called_where_its_hook_sees_it(backend, pre, prepared):
    layers = make_layers(backend)
    seen = []
    register = layers[1].register_forward_pre_hook if pre else layers[1].register_forward_hook
    register(lambda module, inputs, *_: seen.append(inputs[0]))
    x = torch.randn(2, 10, 96)
    bits = dict.fromkeys("qkv", 4)
    ys = project_all(layers, x, bits, first=(None, 5, None))
    assert prepared == ["q", "k"]
    assert len(seen) == 1
    assert torch.equal(seen[0], x[:, :5])
    assert torch.equal(ys[1], project(layers[1], x[:, :5], bits))


def test_ordinary_layers_are_called_one_by_one():
    layers = [nn.Linear(96, 8), make_layer("reference", "a"), nn.Linear(96, 8)]
    x = torch.randn(2, 10, 96)
    ys = project_all(layers, x, {"a": 4}, first=(3, None, None))
    assert torch.equal(ys[0], layers[0](x[:, :3]))
    assert torch.equal(ys[1], layers[1](x, 4))
    assert torch.equal(ys[2], layers[2](x))


@pytest.mark.parametrize("layers", [1, 3])
def test_a_layer_missing_from_the_grid_is_named(layers):
    with pytest.raises(KeyError, match="q"):
        project_all(make_layers("reference")[:layers], torch.randn(2, 96), {"k": 4, "v": 4})


def test_no_bits_mean_unquantized():
    layers = make_layers("reference")
    x = torch.randn(2, 96)
    for y, layer in zip(project_all(layers, x, None), layers, strict=True):
        assert torch.equal(y, layer(x, 16))


def test_a_layer_that_defines_nothing_says_what_is_missing():
    class Bare(QuantizableLinear):
        name = "bare"

    with pytest.raises(TypeError, match="Bare does not define prepare"):
        Bare()(torch.randn(2, 4), 4)
    with pytest.raises(TypeError, match="Bare does not define share_key"):
        Bare().share_key(4)


# Parts that a backend does not know


@dataclass(frozen=True, eq=False)
class WithExtra(QuantizedWeight):
    """A layer of a format to come, which has one tensor more."""

    extra: torch.Tensor | None = None


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_part_that_a_backend_does_not_know_is_refused(backend, monkeypatch):
    fields = vars(random_weight("a.b", 24, 96))
    row = LayerPart("extra", "F32", "[out]", lambda record: (record.out_features,), "to come")
    monkeypatch.setitem(LAYER_PARTS, "extra", row)
    weight = WithExtra(**fields, extra=torch.zeros(24))
    again = WithExtra.from_tensors(
        "a.b", weight.record(), weight.tensors(), weight.rotation, weight.signs
    )
    assert torch.equal(again.parts()["extra"], weight.extra)
    with pytest.raises(UsageError, match=rf"backend {backend} .*layer a\.b: .*know its extra"):
        BACKENDS[backend].make_layer(again, GAUSSIAN)


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_know_parts_of_the_format_and_the_reference_all(backend):
    known = BACKENDS[backend].make_layer(random_weight("a", 24, 96), GAUSSIAN).known_parts
    assert known <= set(LAYER_PARTS)
    assert backend != "reference" or known == set(LAYER_PARTS)
