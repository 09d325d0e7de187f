import pytest
from omegaconf import OmegaConf

from gald.sweep.launch.devices import Devices, count_devices


def config(devices=1, accelerator="auto"):
    return OmegaConf.create({"trainer": {"devices": devices, "accelerator": accelerator}})


@pytest.mark.parametrize(
    ("devices", "count"), [(1, 1), (3, 3), (-1, 4), ("auto", 4), ("2", 2), ("0,3", 2), ([1, 2], 2)]
)
def test_devices_are_counted_as_in_lightning(devices, count):
    assert count_devices(config(devices).trainer.devices, 4) == count


def test_each_cell_sees_its_own_gpus(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    devices = Devices(gpus=["0", "1", "5"])
    first, second = devices.take(config(2)), devices.take(config(1))
    assert first.environment()["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert second.gpus == ("5",) and devices.take(config(1)) is None
    devices.give_back(first)
    assert devices.take(config(2)).gpus == ("0", "1")


def test_cells_share_a_gpu_if_jobs_per_gpu_is_set():
    devices = Devices(gpus=["0", "1"], jobs_per_gpu=2)
    taken = [devices.take(config()).gpus for _ in range(4)]
    assert sorted(taken) == [("0",), ("0",), ("1",), ("1",)] and devices.take(config()) is None


def test_cell_that_requests_too_many_gpus_gets_all():
    assert Devices(gpus=["0", "1"]).take(config(8)).gpus == ("0", "1")


def test_cells_on_the_cpu_share_its_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    devices = Devices(jobs=2, gpus=["0"])
    devices.cores = 8
    slots = [devices.take(config(2, "cpu")) for _ in range(3)]
    assert [slot and slot.environment() for slot in slots[1:]] == [
        {"OMP_NUM_THREADS": "2"},
        None,
    ]
