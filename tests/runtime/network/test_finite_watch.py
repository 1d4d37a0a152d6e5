"""One flag for a device, by whatever name it goes."""

import torch

from runtime.network import finite_watch


def test_a_device_without_a_number_is_the_current_one(monkeypatch):
    monkeypatch.setattr(finite_watch, "_flag", lambda device: device)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert finite_watch.watch_flag(torch.device("cuda")) == torch.device("cuda", 1)
    assert finite_watch.watch_flag(torch.device("cuda", 0)) == torch.device("cuda", 0)
    assert finite_watch.watch_flag(torch.device("cpu")) == torch.device("cpu")
