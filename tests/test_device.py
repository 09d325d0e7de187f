"""The compute device: its choice, and the memory that a process keeps on a CPU."""

import json
import os
import platform
import subprocess
import sys

import pytest
import torch

from gald.device import pick_device

CODE = """
import json, resource, sys
import torch
from gald.device import reuse_memory

def faults(side):
    image = torch.empty(side, side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        reuse_memory(image)
        big = [torch.ones(10 * 2**20) for _ in range(3)]  # 40 MiB each
        del big
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

faults(1), faults(1)  # the gaps between small tensors settle
pages, held = faults(1), resident()
reuse_memory(torch.empty(2, 2))
print(json.dumps([pages, held - resident()]))
"""


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


@pytest.mark.integration
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize("own", [{}, {"MALLOC_ARENA_MAX": "4"}], ids=["default", "set by the user"])
def test_memory_is_kept_for_one_size_and_returned_for_another(own):
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env=os.environ | own,
        capture_output=True,
        text=True,
        check=True,
    )
    pages, returned = json.loads(done.stdout)
    page = os.sysconf("SC_PAGE_SIZE")
    all_pages = 4 * 3 * 40 * 2**20 // page
    if own:
        assert pages > all_pages / 2 and returned < 10
    else:
        assert pages < all_pages / 50 and returned > 100
