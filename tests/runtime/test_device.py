"""Where and in which number format a network computes, unless told otherwise."""

import pytest
import torch

import runtime.device
from runtime.backends import BACKENDS, find_backend
from runtime.backends.cpu.scratch import scratch
from runtime.device import device_and_dtype
from runtime.processor import multiplies_bfloat16, processor_features
from schemas.errors import UsageError

CPU = torch.device("cpu")

needs_cpu_backend = pytest.mark.skipif(
    BACKENDS["cpu"].missing(CPU) is not None, reason=str(BACKENDS["cpu"].missing(CPU))
)


@needs_cpu_backend
@pytest.mark.parametrize(
    ("able", "backend", "expected"),
    [
        (True, "auto", torch.bfloat16),
        (True, "cpu", torch.bfloat16),
        (True, "reference", torch.float32),
        (True, None, torch.float32),
        (False, "cpu", torch.float32),
    ],
)
def test_dtype_on_the_cpu(monkeypatch, able, backend, expected):
    monkeypatch.setattr(runtime.device, "multiplies_bfloat16", lambda: able)
    assert device_and_dtype("cpu", "auto", backend=backend) == (CPU, expected)


def test_what_is_asked_for_is_taken():
    assert device_and_dtype("cpu", "float16", backend="reference") == (CPU, torch.float16)


@pytest.mark.parametrize(("device", "dtype"), [("abacus", "auto"), ("cpu", "int8")])
def test_names_that_are_none_are_refused(device, dtype):
    with pytest.raises(UsageError, match="one of auto, "):
        device_and_dtype(device, dtype)


def test_a_backend_of_another_device_is_refused(monkeypatch):
    monkeypatch.setattr(runtime.device, "multiplies_bfloat16", lambda: True)
    with pytest.raises(UsageError, match="triton cannot run on cpu"):
        device_and_dtype("cpu", "auto", backend="triton")


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_bf16"])
def test_features_of_the_processor(monkeypatch, feature):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {feature: True}, raising=False)
    assert multiplies_bfloat16()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {feature: False}, raising=False)
    assert not multiplies_bfloat16()


def test_a_torch_that_does_not_tell_features_has_none(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert processor_features() == {}
    assert not multiplies_bfloat16()


def test_scratch_is_used_again_and_serves_every_mode():
    with torch.inference_mode():
        first, second = scratch(100)
    assert first.data_ptr() != second.data_ptr()
    again, _ = scratch(50)
    assert again.data_ptr() == first.data_ptr()
    assert again.shape == (50,)
    again.add_(1)  # outside inference mode
    assert scratch(10_000_000)[0].shape == (10_000_000,)


@needs_cpu_backend
def test_the_backend_is_looked_up_in_silence(caplog):
    """Loading logs it; once is enough."""
    caplog.set_level("INFO")
    device_and_dtype("cpu", "auto", backend="auto")
    assert "backend" not in caplog.text


def test_apples_gpu_is_taken_where_torch_has_it_and_said_to_be_untried(monkeypatch, caplog):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match="--device mps: torch sees no Apple GPU"):
        device_and_dtype("mps", "auto")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    mps = torch.device("mps")
    assert device_and_dtype("mps", "auto", backend="auto") == (mps, torch.float32)
    assert "never tried" in caplog.text
    assert find_backend("auto", mps).name == "reference"
