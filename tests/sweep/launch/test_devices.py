import functools

import pytest

from gald.sweep.compose import Need
from gald.sweep.launch.devices import Devices, count_devices


def need(devices=1, accelerator="auto"):
    return Need(accelerator, devices)


@pytest.fixture
def devices(tmp_path):
    """Return a function that makes the devices of one launcher."""
    return functools.partial(Devices, locks=tmp_path / "locks")


@pytest.mark.parametrize(
    ("devices", "count"), [(1, 1), (3, 3), (-1, 4), ("auto", 4), ("2", 2), ("0,3", 2), ([1, 2], 2)]
)
def test_devices_are_counted_as_in_lightning(devices, count):
    assert count_devices(devices, 4) == count


def test_each_cell_sees_its_own_gpus(monkeypatch, devices):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    devices = devices(gpus=["0", "1", "5"])
    first, second = devices.take(need(2)), devices.take(need(1))
    assert first.environment()["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert second.gpus == ("5",) and devices.take(need(1)) is None
    devices.give_back(first)
    assert devices.take(need(2)).gpus == ("0", "1")


def test_cells_share_a_gpu_if_jobs_per_gpu_is_set(devices):
    devices = devices(gpus=["0", "1"], jobs_per_gpu=2)
    taken = [devices.take(need()).gpus for _ in range(4)]
    assert sorted(taken) == [("0",), ("0",), ("1",), ("1",)] and devices.take(need()) is None


def test_cell_that_requests_too_many_gpus_gets_all(devices):
    assert devices(gpus=["0", "1"]).take(need(8)).gpus == ("0", "1")


def test_cells_on_the_cpu_share_its_cores(monkeypatch, devices):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    devices = devices(jobs=2, gpus=["0"])
    devices.cores = 8
    slots = [devices.take(need(2, "cpu")) for _ in range(3)]
    assert [slot and slot.environment() for slot in slots[1:]] == [
        {"OMP_NUM_THREADS": "2"},
        None,
    ]


def test_launchers_never_put_two_cells_on_one_gpu(devices):
    first, second = devices(gpus=["0", "1"]), devices(gpus=["0", "1"])
    assert first.take(need()).gpus == ("0",)
    slot = second.take(need())
    assert slot.gpus == ("1",) and first.take(need()) is None
    second.give_back(slot)
    assert first.take(need()).gpus == ("1",)
