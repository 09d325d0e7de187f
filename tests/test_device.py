"""Choice of the compute device."""

import pytest
import torch

from gald.device import pick_device


def test_cpu_is_always_available():
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "cpu:x"])
def test_missing_device_is_named(name):
    with pytest.raises(ValueError, match=rf"device is '{name}', but this machine has only cpu"):
        pick_device(name)


def test_auto_selects_the_accelerator_if_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    assert pick_device() == torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("mps"))
    assert pick_device("auto") == torch.device("mps")
