"""Which cells run side by side, and on what."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from omegaconf import DictConfig


@dataclass(frozen=True)
class DeviceSlot:
    """Where a cell runs: on these GPUs, or on the CPU if there are none."""

    gpus: tuple[str, ...]
    threads: int

    def environment(self) -> dict[str, str]:
        """Variables that show a process this place only."""
        threads = os.environ.get("OMP_NUM_THREADS", str(self.threads))
        shown = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {}
        return {"OMP_NUM_THREADS": threads} | shown


class Devices:
    """The places of this machine, given out and taken back.

    Threads follow from the number of places and not from how many are taken: the sums of a cell
    then have the same order whenever it runs.

    Args:
        jobs: most cells at once; null: as many as the GPUs allow, on a CPU one per four cores.
        jobs_per_gpu: cells that share a GPU.
        gpus: their names, as in CUDA_VISIBLE_DEVICES; null: those of this machine.
    """

    def __init__(
        self, jobs: int | None = None, jobs_per_gpu: int = 1, gpus: Sequence[str] | None = None
    ) -> None:
        self.jobs, self.jobs_per_gpu = jobs, jobs_per_gpu
        self.gpus = list(visible_gpus() if gpus is None else gpus)
        self.taken: list[DeviceSlot] = []
        mine = hasattr(os, "sched_getaffinity")  # Linux: the cores that this process may use
        self.cores = len(os.sched_getaffinity(0)) if mine else os.cpu_count() or 1

    def take(self, config: DictConfig) -> DeviceSlot | None:
        """A place for a cell, or None while there is none; a cell alone always gets one."""
        processes = count_devices(config.trainer.devices, len(self.gpus))
        if self.gpus and config.trainer.accelerator in ("auto", "gpu", "cuda"):
            place = self._on_gpus(min(processes, len(self.gpus)))
        else:
            jobs = self.jobs or max(1, self.cores // 4)
            place = DeviceSlot((), max(1, self.cores // jobs // processes))
            place = place if len(self.taken) < jobs else None
        if place is not None:
            self.taken.append(place)
        return place

    def give_back(self, place: DeviceSlot) -> None:
        """Let the next cell have this place."""
        self.taken.remove(place)

    def _on_gpus(self, count: int) -> DeviceSlot | None:
        at_once = max(1, len(self.gpus) * self.jobs_per_gpu // count)
        jobs = min(self.jobs or at_once, at_once)
        load = {gpu: sum(gpu in place.gpus for place in self.taken) for gpu in self.gpus}
        free = [gpu for gpu in sorted(load, key=lambda g: load[g]) if load[gpu] < self.jobs_per_gpu]
        if len(free) < count or (self.jobs and len(self.taken) >= self.jobs):
            return None
        return DeviceSlot(tuple(free[:count]), max(1, self.cores // jobs // count))


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is not None:
        return [name.strip() for name in shown.split(",") if name.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]


def count_devices(devices: object, available: int) -> int:
    """How many devices `trainer.devices` asks for; `auto` and -1 ask for all."""
    if isinstance(devices, int):
        return devices if devices > 0 else max(1, available)
    if isinstance(devices, str):
        if devices in ("auto", "-1"):
            return max(1, available)
        return int(devices) if devices.isdigit() else len(devices.strip(",").split(","))
    return len(devices) if isinstance(devices, Sequence) else 1
