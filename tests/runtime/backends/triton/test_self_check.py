"""The kernels check themselves before they are taken: right ones pass, wrong ones are found."""

import pytest
import torch

from runtime.backends.trial import Trial, TrialLayer
from runtime.backends.triton import check_results, self_check
from schemas.errors import ResourceError
from schemas.manifest import QuantizerRecord
from tests.artifacts.make_pack import random_weight
from tests.runtime.triton_device import DEVICE, launch

QUANTIZER = QuantizerRecord(weight_scale="gaussian", activation_scale="gaussian")
WEIGHTS = {
    "wide": random_weight("wide", 40, 96, bits=4, rank=3, block=(8, 24)),
    "plain": random_weight("plain", 24, 32, bits=8, rank=0, block=None, smoothing=True),
}


@pytest.fixture(autouse=True)
def a_cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(self_check, "TOKENS", (1, 9))
    check_results.forget()
    yield
    check_results.forget()


def trial(dtype=torch.bfloat16, bits=(2, 5), weights=WEIGHTS):
    layers = tuple(TrialLayer(name, weight.record(), bits) for name, weight in weights.items())
    return Trial(layers, QUANTIZER, dtype, weights.__getitem__)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bits", [(2, 5), (8,), (16,)])
def test_right_kernels_pass(dtype, bits):
    assert self_check.first_failure(DEVICE, trial(dtype, bits)) is None


@pytest.mark.gpu
def test_right_kernels_pass_in_full_width(monkeypatch):
    monkeypatch.setattr(self_check, "TOKENS", (1, 77, 1100))
    weights = {"wide": random_weight("wide", 6144, 1536, block=(64, 48), rank=32)}
    assert self_check.first_failure(DEVICE, trial(weights=weights)) is None


def changed(monkeypatch, name, change):
    """Let the kernels' caller return something else."""
    right = getattr(launch, name)
    monkeypatch.setattr(launch, name, lambda *a, **k: change(right(*a, **k), k))


def one_sum_off(y, options):
    if options.get("raw"):
        y.view(-1)[-1] += 1
    return y


def output_scaled(y, options):
    return y if options.get("raw") else y * 1.055


def output_not_finite(y, options):
    if not options.get("raw"):
        y.view(-1)[3] = torch.nan
    return y


def rows_exchanged(y, options):
    return y if options.get("raw") else y.roll(1, -1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (one_sum_off, "layer wide (A2, tokens: 1): integer sums differ"),
        (output_scaled, "layer wide (A2, tokens: 1): its output is off by 5"),
        (output_not_finite, "its output is off by nan"),
        (rows_exchanged, "its output is off by"),
    ],
)
def test_wrong_kernels_are_found(monkeypatch, change, said):
    changed(monkeypatch, "product", change)
    assert said in self_check.first_failure(DEVICE, trial())


def test_wrong_codes_and_wrong_factors_are_found(monkeypatch):
    with monkeypatch.context() as patch:
        changed(patch, "prepare_tokens", lambda made, _: (-made[0], made[1], -made[2], made[3]))
        assert "its output is off" in self_check.first_failure(DEVICE, trial())
    changed(monkeypatch, "low_rank_activations", lambda made, _: torch.zeros_like(made))
    assert "its output is off" in self_check.first_failure(DEVICE, trial())


class StaleGraph:
    """Stands in for graphs: replays what the first call gave, whatever the input."""

    def __init__(self, forward):
        self.forward, self.output = forward, None

    def __call__(self, x, bits):
        self.output = self.forward(x, bits) if self.output is None else self.output
        return self.output


def test_graphs_that_replay_something_else_are_found(monkeypatch):
    monkeypatch.setattr(self_check, "GraphedForward", StaleGraph)
    said = self_check.first_failure(DEVICE, trial())
    assert said.startswith("layer wide (A5, tokens: 9): a CUDA graph of it is off by")


def test_a_layer_that_the_kernels_do_not_hold_is_not_tried():
    weight = random_weight("huge", 2, 40_000, rank=0, block=None)
    assert self_check.first_failure(DEVICE, trial(weights={"huge": weight})) is None


class Counted:
    """Stands in for the check itself; counts its calls."""

    def __init__(self, outcome=None):
        self.outcome, self.calls = outcome, 0

    def __call__(self, _device, _trial):
        self.calls += 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture
def stand_in(monkeypatch):
    def put(outcome=None):
        counted = Counted(outcome)
        monkeypatch.setattr(self_check, "first_failure", counted)
        return counted

    return put


def new_process():
    check_results.forget()


@pytest.mark.parametrize("outcome", [None, "layer a: integer sums differ"])
def test_a_result_is_remembered_from_run_to_run(stand_in, outcome):
    check = stand_in(outcome)
    expected = outcome and f"its check failed here: {outcome}"
    for _ in range(3):
        assert self_check.self_check(DEVICE, trial()) == expected
        new_process()
    assert check.calls == 1


@pytest.mark.parametrize(
    "name", ["driver_version", "triton_version", "_kernels_digest", "capability"]
)
def test_what_is_new_is_checked_anew(monkeypatch, stand_in, name):
    check = stand_in()
    self_check.self_check(DEVICE, trial())
    monkeypatch.setattr(self_check, name, lambda *_: "another")
    self_check.self_check(DEVICE, trial())
    assert check.calls == 2
    monkeypatch.undo()


def test_other_layers_and_number_formats_are_checked_anew(stand_in):
    check = stand_in()
    trials = (trial(), trial(torch.float32), trial(bits=(3,)), trial(weights={}))
    for one in (*trials, *trials):
        self_check.self_check(DEVICE, one)
    assert check.calls == 4


def test_tile_sizes_of_the_users_own_are_checked_anew(stand_in):
    check = stand_in()
    self_check.self_check(DEVICE, trial())
    file = self_check.user_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}")
    self_check.self_check(DEVICE, trial())
    assert check.calls == 2


def test_an_error_of_the_compiler_is_a_reason_in_one_line(stand_in):
    check = stand_in(RuntimeError("ptxas died\x1b[31m\nat some length"))
    said = self_check.self_check(DEVICE, trial())
    assert said == "its check failed here: RuntimeError: ptxas died [31m"
    new_process()
    assert self_check.self_check(DEVICE, trial()) == said
    assert check.calls == 1


def test_missing_memory_says_nothing_about_the_kernels(stand_in):
    check = stand_in(torch.OutOfMemoryError("CUDA out of memory"))
    for _ in range(2):
        assert "no memory left" in self_check.self_check(DEVICE, trial())
    assert check.calls == 2


def test_a_device_that_the_check_broke_is_an_error_once(monkeypatch, stand_in):
    check = stand_in(RuntimeError("an illegal memory access was encountered"))
    monkeypatch.setattr(self_check, "_is_usable", lambda device: False)
    with pytest.raises(ResourceError, match="cannot be used any more") as caught:
        self_check.self_check(DEVICE, trial())
    assert "reference" in caught.value.hint
    new_process()
    assert "illegal memory access" in self_check.self_check(DEVICE, trial())
    assert check.calls == 1


def test_the_device_here_is_usable():
    assert self_check._is_usable(DEVICE)


def test_ctrl_c_is_no_result(monkeypatch, stand_in):
    def interrupted(_device, _trial):
        raise KeyboardInterrupt

    monkeypatch.setattr(self_check, "first_failure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        self_check.self_check(DEVICE, trial())
    check = stand_in()
    assert self_check.self_check(DEVICE, trial()) is None
    assert check.calls == 1
