"""Runner of the cells of a sweep, side by side; a failed cell does not stop the others."""

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from gald.sweep.launch.cell_process import CellProcess, clear
from gald.sweep.launch.devices import Devices, DeviceSlot, count_devices
from gald.sweep.launch.exit_status import ExitStatus
from gald.sweep.launch.jobs import Job, placed, smaller_batch
from gald.sweep.launch.live_table import LiveTable
from gald.sweep.manifest import Manifest, edit

POLL = 0.2  # seconds between two checks of the processes


@dataclass(frozen=True)
class RetryPolicy:
    """Limits of a sweep for hung, killed and stopped cells.

    Args:
        minutes: minutes without a heartbeat after which a cell counts as hung; must be longer than
            start, compilation and the longest batch.
        retries: number of restarts of a cell that was killed from outside.
        grace_seconds: time in which cells can save when the sweep is stopped.
    """

    minutes: float = 30.0
    retries: int = 2
    grace_seconds: float = 60.0


class Stopped(BaseException):
    """SIGTERM or SIGHUP reached the launcher."""


def run_jobs(folder: Path, jobs: Sequence[Job], devices: Devices, policy: RetryPolicy) -> None:
    """Run the pending cells among `jobs`, and record the end of each in the manifest.

    Raises:
        KeyboardInterrupt, Stopped: the launcher received a signal; the cells have saved and ended.
    """
    cells = Manifest.load(folder).cells
    runner = _Runner(folder, devices, policy)
    runner.waiting = [job for job in jobs if cells[job.key].state == "pending"]
    if runner.waiting:
        runner.run()


class _Runner:
    def __init__(self, folder: Path, devices: Devices, policy: RetryPolicy) -> None:
        self.folder, self.devices, self.policy = folder, devices, policy
        self.waiting: list[Job] = []
        self.running: dict[str, tuple[Job, CellProcess, DeviceSlot]] = {}
        self.kills: dict[str, int] = {}

    def run(self) -> None:
        old = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGHUP)}
        try:
            with LiveTable(self.folder, {job.key: job.label for job in self.waiting}) as table:
                while self.waiting or self.running:
                    self._start_waiting()
                    table.update({key: attempt for key, (_, attempt, _) in self.running.items()})
                    time.sleep(POLL)
                    self._collect()
                table.update({})
        finally:
            self._stop_all()
            for number, handler in old.items():
                signal.signal(number, handler)

    def _start_waiting(self) -> None:
        """Start waiting cells as long as devices are free."""
        for job in list(self.waiting):
            slot = self.devices.take(job.config)
            if slot is None:
                continue
            self.waiting.remove(job)
            with edit(self.folder) as manifest:
                cell = manifest.cells[job.key]
                cell.state, cell.reason, cell.attempts = "running", None, cell.attempts + 1
            config = placed(job, self.folder, cell)
            if slot.gpus and not isinstance(config.trainer.devices, int):
                # A list of indices would not match the GPUs that the cell can see.
                config.trainer.devices = len(slot.gpus)
            seconds = 60 * self.policy.minutes
            attempt = CellProcess(config, slot.environment(), cell.micro_batch_size, seconds)
            self.running[job.key] = (job, attempt, slot)

    def _collect(self) -> None:
        for key, (job, attempt, slot) in list(self.running.items()):
            status = attempt.poll()
            if status is not None:
                del self.running[key]
                self.devices.give_back(slot)
                self._record(job, attempt, status)

    def _record(
        self, job: Job, attempt: CellProcess, status: ExitStatus, stopping: bool = False
    ) -> None:
        """Record how an attempt ended, and queue the cell again if a restart may help."""
        with edit(self.folder) as manifest:
            cell = manifest.cells[job.key]
            cell.seconds = round((cell.seconds or 0.0) + attempt.seconds, 1)
            cell.reason = status.reason
            cell.state = {"done": "done", "failed": "failed"}.get(status.kind, "pending")
            if status.kind == "memory":
                count = count_devices(job.config.trainer.devices, len(self.devices.gpus))
                last = cell.micro_batch_size or attempt.heartbeat().get("micro_batch_size")
                cell.micro_batch_size = smaller_batch(job.config, last, count)
                if cell.micro_batch_size is None:
                    cell.state, cell.reason = "failed", f"{status.reason} with micro-batch size 1"
                else:
                    size = cell.micro_batch_size
                    cell.reason = f"{status.reason}; restarted with micro-batch size {size}"
                    clear(attempt.folder)  # the size must not change within a training
            if status.kind == "killed" and not stopping:
                self.kills[job.key] = self.kills.get(job.key, 0) + 1
                if self.kills[job.key] > self.policy.retries:
                    cell.state, cell.reason = "failed", f"{cell.reason}, {cell.attempts} times"
        if cell.state == "pending" and status.kind in ("memory", "killed"):
            self.waiting.insert(0, job)

    def _stop_all(self) -> None:
        """Let running cells save and end, then kill them; a second interrupt kills at once."""
        deadline = time.monotonic() + self.policy.grace_seconds
        try:
            for _, attempt, _ in self.running.values():
                attempt.stop()
            while self.running and time.monotonic() < deadline:
                time.sleep(POLL)
                for key, (job, attempt, _) in list(self.running.items()):
                    status = attempt.poll()
                    if status is not None:
                        del self.running[key]
                        self._record(job, attempt, status, stopping=True)
        finally:
            for job, attempt, _ in self.running.values():
                attempt.kill()
                killed = ExitStatus("preempted", "killed when its launcher ended")
                self._record(job, attempt, killed, stopping=True)
            self.running = {}


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(signal.Signals(number).name)
