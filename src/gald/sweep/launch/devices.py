"""Devices of this machine, assigned to cells that run side by side."""

import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from gald.install.environment import require_posix
from gald.sweep.compose import Need

# Files of /dev by which Linux offers GPUs to CUDA, also on Jetson and in the WSL, and to ROCm.
DRIVERS = ("nvidia*", "nvhost*", "nvgpu*", "dxg", "kfd")
GPUS = "GALD_GPUS"  # environment variable: names of the GPUs for the jobs of submitit


@dataclass
class DeviceSlot:
    """Devices of one cell: these GPUs, or the CPU if there are none."""

    gpus: tuple[str, ...]
    threads: int
    locks: ExitStack = field(default_factory=ExitStack, repr=False, compare=False)

    def environment(self) -> dict[str, str]:
        """Environment variables that restrict a process to these devices."""
        threads = os.environ.get("OMP_NUM_THREADS", str(self.threads))
        gpus = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {}
        return {"OMP_NUM_THREADS": threads} | gpus


class Devices:
    """Device slots of this machine, assigned to cells and released.

    GPUs are given out by locks that all processes of a user share, so that two launchers, or the
    jobs of joblib, never put two cells on one GPU.

    The number of threads depends on the number of slots, not on how many are in use. So a cell
    sums in the same order, and gets the same numbers, whenever it runs.

    Args:
        jobs: most cells at once; null: as many as the GPUs allow, on a CPU one per four cores.
        jobs_per_gpu: cells that share a GPU.
        gpus: names of the GPUs, as in CUDA_VISIBLE_DEVICES; null: those of this machine.
        locks: folder of the locks; null: one in the folder for temporary files. Inside of a job
            of SLURM it is the job's own, because SLURM numbers the GPUs of each job from 0.
    """

    def __init__(
        self,
        jobs: int | None = None,
        jobs_per_gpu: int = 1,
        gpus: Sequence[str] | None = None,
        locks: Path | None = None,
    ) -> None:
        require_posix("a sweep")
        self.jobs, self.jobs_per_gpu = jobs, jobs_per_gpu
        self.gpus = list(visible_gpus() if gpus is None else gpus)
        self.locks = locks or Path(tempfile.gettempdir()) / f"gald-gpus-{os.getuid()}{_scope()}"
        self.taken: list[DeviceSlot] = []
        linux = hasattr(os, "sched_getaffinity")  # counts only cores that this process may use
        self.cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1

    def take(self, need: Need) -> DeviceSlot | None:
        """Assign a slot to a cell; None if too few are free. A cell that runs alone gets one."""
        processes = count_devices(need.devices, len(self.gpus))
        if self.gpus and need.accelerator in ("auto", "gpu", "cuda"):
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
        slot.locks.close()
        self.taken.remove(slot)

    def _on_gpus(self, count: int) -> DeviceSlot | None:
        at_once = max(1, len(self.gpus) * self.jobs_per_gpu // count)
        jobs = min(self.jobs or at_once, at_once)
        if self.jobs and len(self.taken) >= self.jobs:
            return None
        with ExitStack() as locks:
            chosen: list[str] = []
            # First the GPUs without a cell, then those with one, and so on.
            for place in range(self.jobs_per_gpu):
                for gpu in self.gpus:
                    if len(chosen) == count:
                        break
                    if gpu not in chosen and self._lock(gpu, place, locks):
                        chosen.append(gpu)
            if len(chosen) < count:
                return None
            return DeviceSlot(tuple(chosen), max(1, self.cores // jobs // count), locks.pop_all())

    def _lock(self, gpu: str, place: int, locks: ExitStack) -> bool:
        """Lock one of the places of a GPU; returns whether it was free."""
        self.locks.mkdir(mode=0o700, exist_ok=True)
        lock = FileLock(self.locks / f"{gpu.replace('/', '-')}.{place}.lock", timeout=0)
        try:
            locks.enter_context(lock)
        except Timeout:
            return False
        return True


def _scope() -> str:
    job = os.environ.get("SLURM_JOB_ID")
    return f"-{job}" if job else ""


def tell_jobs() -> None:
    """Tell the GPUs of this process to the jobs that submitit starts on this machine.

    It sets CUDA_VISIBLE_DEVICES in each of them: to the same first GPUs, or to none.
    """
    os.environ[GPUS] = ",".join(visible_gpus())


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that this process may use."""
    if os.environ.get("SUBMITIT_EXECUTOR") == "local" and GPUS in os.environ:
        return [name for name in os.environ[GPUS].split(",") if name]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    if sys.platform == "linux" and not any(any(Path("/dev").glob(name)) for name in DRIVERS):
        return []
    import torch  # takes seconds, which a machine without a GPU need not spend

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
