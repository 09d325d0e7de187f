"""Devices of this machine, assigned to cells that run side by side."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from omegaconf import DictConfig


@dataclass(frozen=True)
class DeviceSlot:
    """Devices of one cell: these GPUs, or the CPU if there are none."""

    gpus: tuple[str, ...]
    threads: int

    def environment(self) -> dict[str, str]:
        """Environment variables that restrict a process to these devices."""
        threads = os.environ.get("OMP_NUM_THREADS", str(self.threads))
        gpus = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {}
        return {"OMP_NUM_THREADS": threads} | gpus


class Devices:
    """Device slots of this machine, assigned to cells and released.

    The number of threads depends on the number of slots, not on how many are in use. So a cell
    sums in the same order, and gets the same numbers, whenever it runs.

    Args:
        jobs: most cells at once; null: as many as the GPUs allow, on a CPU one per four cores.
        jobs_per_gpu: cells that share a GPU.
        gpus: names of the GPUs, as in CUDA_VISIBLE_DEVICES; null: those of this machine.
    """

    def __init__(
        self, jobs: int | None = None, jobs_per_gpu: int = 1, gpus: Sequence[str] | None = None
    ) -> None:
        self.jobs, self.jobs_per_gpu = jobs, jobs_per_gpu
        self.gpus = list(visible_gpus() if gpus is None else gpus)
        self.taken: list[DeviceSlot] = []
        linux = hasattr(os, "sched_getaffinity")  # counts only cores that this process may use
        self.cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1

    def take(self, config: DictConfig) -> DeviceSlot | None:
        """Assign a slot to a cell; None if too few are free. A cell that runs alone gets one."""
        processes = count_devices(config.trainer.devices, len(self.gpus))
        if self.gpus and config.trainer.accelerator in ("auto", "gpu", "cuda"):
            slot = self._on_gpus(min(processes, len(self.gpus)))
        else:
            jobs = self.jobs or max(1, self.cores // 4)
            slot = DeviceSlot((), max(1, self.cores // jobs // processes))
            slot = slot if len(self.taken) < jobs else None
        if slot is not None:
            self.taken.append(slot)
        return slot

    def give_back(self, slot: DeviceSlot) -> None:
        """Release a slot for the next cell."""
        self.taken.remove(slot)

    def _on_gpus(self, count: int) -> DeviceSlot | None:
        at_once = max(1, len(self.gpus) * self.jobs_per_gpu // count)
        jobs = min(self.jobs or at_once, at_once)
        load = {gpu: sum(gpu in slot.gpus for slot in self.taken) for gpu in self.gpus}
        free = [gpu for gpu in sorted(load, key=lambda g: load[g]) if load[gpu] < self.jobs_per_gpu]
        if len(free) < count or (self.jobs and len(self.taken) >= self.jobs):
            return None
        return DeviceSlot(tuple(free[:count]), max(1, self.cores // jobs // count))


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]


def count_devices(devices: object, available: int) -> int:
    """Return the number of devices that `trainer.devices` requests; `auto` and -1 mean all."""
    if isinstance(devices, int):
        return devices if devices > 0 else max(1, available)
    if isinstance(devices, str):
        if devices in ("auto", "-1"):
            return max(1, available)
        return int(devices) if devices.isdigit() else len(devices.strip(",").split(","))
    return len(devices) if isinstance(devices, Sequence) else 1
