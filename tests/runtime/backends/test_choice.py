"""Which backend ``auto`` takes: the first that may be, where one may have to prove itself first."""

import logging
from dataclasses import replace

import pytest
import torch

from artifacts.pack.reader import open_pack
from runtime.backends import BACKENDS, find_backend, select_backend
from runtime.backends.reference import ReferenceLinear
from runtime.backends.trial import trial_of
from runtime.load import load_pack, network_from_pack
from schemas.errors import UsageError
from tests.artifacts.make_pack import make_pack

CPU = torch.device("cpu")
FLOAT = torch.float32


class OwnLinear(ReferenceLinear):
    """Layers of the backend that stands in for one of a GPU's."""


class Check:
    """Stands in for a backend's check of itself on a device."""

    def __init__(self):
        self.failure, self.trials = None, []
        self.described = BACKENDS["triton"].described()

    def __call__(self, device, trial):
        self.trials.append((device, trial))
        return self.failure


@pytest.fixture
def check(monkeypatch):
    """A backend that has to be tried stands before the reference, and none that is on the CPU."""
    found = Check()
    fast = replace(
        BACKENDS["triton"],
        factory=lambda weight, quantizer: OwnLinear(weight, quantizer.activation_scale),
        missing=lambda device: None,
        self_check=found,
    )
    cpu = replace(BACKENDS["cpu"], missing=lambda device: "not here")
    monkeypatch.setattr("runtime.backends.BACKENDS", {**BACKENDS, "triton": fast, "cpu": cpu})
    return found


@pytest.fixture
def pack(tmp_path):
    make_pack(tmp_path / "tiny.qpack")
    return open_pack(tmp_path / "tiny.qpack")


def test_backends_say_which_integers_they_multiply():
    for name, backend in BACKENDS.items():
        said = "multiplies 8-bit integers: activations of fewer bits save little or no time"
        if name == "cpu":
            assert backend.described().endswith(said)
        else:
            assert backend.described() == ("" if name == "reference" else said)


def layers_of(network):
    return {type(module) for module in network.modules() if isinstance(module, ReferenceLinear)}


def test_it_is_taken_where_it_passes(check, pack, caplog):
    caplog.set_level(logging.INFO)
    assert layers_of(network_from_pack(pack, device=CPU, dtype=FLOAT)) == {OwnLinear}
    assert f"backend triton on cpu ({check.described})" in caplog.messages
    ((device, trial),) = check.trials
    assert device == CPU
    assert trial.dtype == FLOAT
    assert trial.quantizer == pack.manifest.quantizer


def test_one_line_says_why_it_is_not_where_it_fails(check, pack, caplog):
    caplog.set_level(logging.INFO)
    check.failure = "its check failed here: layer a: integer sums differ"
    assert layers_of(network_from_pack(pack, device=CPU, dtype=FLOAT)) == {ReferenceLinear}
    assert caplog.messages == [
        "backend reference on cpu (cpu: not here; triton: its check failed here: layer a: integer"
        " sums differ)"
    ]


def test_the_whole_pipeline_takes_what_passes(check, tmp_path, monkeypatch):
    import runtime.load

    make_pack(tmp_path / "a.qpack")
    monkeypatch.setattr(runtime.load, "load_vae", lambda folder, device, **_: None)
    for failure, layer in ((None, OwnLinear), ("no", ReferenceLinear)):
        check.failure = failure
        pipeline = load_pack(tmp_path / "a.qpack", device=CPU, dtype=FLOAT)
        assert layers_of(pipeline.network) == {layer}


def test_who_asks_for_it_gets_it_untried(check, pack):
    check.failure = "no"
    network = network_from_pack(pack, device=CPU, dtype=FLOAT, backend="triton")
    assert layers_of(network) == {OwnLinear}
    assert not check.trials


def test_who_asks_for_another_tries_nothing(check, pack):
    network_from_pack(pack, device=CPU, dtype=FLOAT, backend="reference")
    assert not check.trials


def test_without_layers_to_try_it_on_it_is_not_taken(check):
    assert find_backend("auto", CPU).name == "reference"
    assert not check.trials


def test_where_it_cannot_run_it_is_not_tried(check, pack, monkeypatch):
    import runtime.backends

    lacking = replace(runtime.backends.BACKENDS["triton"], missing=lambda device: "no such GPU")
    monkeypatch.setitem(runtime.backends.BACKENDS, "triton", lacking)
    assert select_backend("auto", CPU, trial_of(pack, FLOAT)).name == "reference"
    assert not check.trials
    with pytest.raises(UsageError, match="no such GPU"):
        select_backend("triton", CPU)


def test_on_a_gpu_the_kernels_come_before_the_reference_and_the_packed_ones_after_it():
    names = list(BACKENDS)
    assert names.index("triton") < names.index("reference") < names.index("triton-packed")
    assert BACKENDS["triton"].self_check is not None


def test_the_layers_that_are_tried(pack):
    trial = trial_of(pack, FLOAT)
    records = [layer.record for layer in trial.layers]
    layers = [pack.manifest.layers[name] for name in pack.layer_names]
    assert len(records) <= 5
    assert len({layer.name for layer in trial.layers}) == len(records)
    for pick, part in ((max, "in_features"), (max, "out_features"), (min, "weight_bits")):
        extreme = pick(getattr(layer, part) for layer in layers)
        assert extreme in [getattr(record, part) for record in records]
    assert any(record.smoothing for record in records)
    # The pack's grid has 5, 4 and 16 bits; unquantized activations have no integers to compare.
    assert {layer.activation_bits for layer in trial.layers} == {(4, 5)}
    assert trial.read(trial.layers[0].name).name == trial.layers[0].name


def test_a_pack_without_quantized_layers_has_nothing_to_try(tmp_path):
    make_pack(tmp_path / "a.qpack")
    names = open_pack(tmp_path / "a.qpack").layer_names
    make_pack(tmp_path / "b.qpack", unquantized=tuple(names), signs=False)
    assert trial_of(open_pack(tmp_path / "b.qpack"), FLOAT).layers == ()
