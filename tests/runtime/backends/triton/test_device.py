"""Which devices the kernels can run on."""

import torch

from runtime.backends.triton.device import missing_reason


def test_a_device_without_the_kernels_says_why(monkeypatch):
    assert missing_reason(torch.device("cpu")) == "it runs on CUDA alone"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.version, "hip", None)
    reason = missing_reason(torch.device("cuda", 3))
    assert reason == "it needs compute capability 8.0, the device has 7.5"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert missing_reason(torch.device("cuda", 4)) is None
