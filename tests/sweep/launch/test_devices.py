import functools
import tempfile

import pytest

from gald.sweep.compose import Need
from gald.sweep.launch.devices import Devices, count_devices, tell_jobs, visible_gpus


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


def test_jobs_of_slurm_do_not_wait_for_each_others_gpu_of_the_same_number(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    taken = []
    for job in ("7", "8"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        taken.append(Devices(gpus=["0"]).take(need()))
        assert Devices(gpus=["0"]).take(need()) is None  # in the same job
    assert [slot.gpus for slot in taken] == [("0",), ("0",)]


def test_jobs_of_submitit_know_the_gpus_of_the_machine(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    tell_jobs()
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    for theirs in ("", "0"):  # what submitit sets without and with gpus_per_node=1
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", theirs)
        assert visible_gpus() == ["2", "5"]
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    assert visible_gpus() == ["0"]
