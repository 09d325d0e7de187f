"""Runner of the cells of a sweep, side by side; a failed cell does not stop the others."""

import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from omegaconf import OmegaConf

from gald.errors import to_sentence
from gald.run.fresh import clear
from gald.run.preemption import SIGNALS, hand_on
from gald.sweep.cells import Cell, Sweep
from gald.sweep.claim import Claim, claim
from gald.sweep.compose import Need, Needs, Source
from gald.sweep.launch.cell import CONFIG, Options
from gald.sweep.launch.cell_process import CellProcess, Start, start_cold
from gald.sweep.launch.devices import Devices, DeviceSlot, count_devices
from gald.sweep.launch.exit_status import ExitStatus
from gald.sweep.launch.live_table import LiveTable
from gald.sweep.state import Record, read_score, read_state, write_record

POLL = 0.2  # seconds between two checks of the processes
ELSEWHERE = 5.0  # seconds between two checks of cells that other processes run


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
    """A signal that announces a preemption reached the launcher.

    Args:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass
class _Attempt:
    cell: Cell
    record: Record
    process: CellProcess
    slot: DeviceSlot
    claim: Claim
    need: Need


def run_cells(
    sweep: Sweep,
    cells: Sequence[Cell],
    source: Source,
    devices: Devices,
    policy: RetryPolicy,
    wait: bool = True,
    start: Start = start_cold,
) -> dict[int, Record]:
    """Run the cells that are neither done nor failed nor run by another process.

    Args:
        sweep: the sweep.
        cells: cells of the sweep to run.
        source: where Hydra finds their config.
        devices: devices to run them on.
        policy: limits.
        wait: whether to wait for cells that other processes run, and take over those that they
            leave unfinished.
        start: starts the first process of each cell.

    Returns:
        the record of each cell by its number.

    Raises:
        KeyboardInterrupt, Stopped: a signal arrived; the cells have saved and ended.
    """
    runner = _Runner(sweep, cells, source, devices, policy, wait, start)
    if any(runner.waiting.values()) or runner.elsewhere:
        runner.run()
    return runner.records


class _Runner:
    def __init__(
        self,
        sweep: Sweep,
        cells: Sequence[Cell],
        source: Source,
        devices: Devices,
        policy: RetryPolicy,
        wait: bool,
        start: Start,
    ) -> None:
        self.sweep, self.source = sweep, source
        self.devices, self.policy, self.wait = devices, policy, wait
        self.start = start
        self.needs = Needs(source)
        self.records: dict[int, Record] = {}
        self.waiting: dict[Need, deque[Cell]] = {}
        self.elsewhere: dict[int, Cell] = {}
        self.running: dict[int, _Attempt] = {}
        self.kills: dict[int, int] = {}
        self.checked_at = time.monotonic()
        self.table = LiveTable(sweep.path, cells)
        for cell in cells:
            state = read_state(sweep.place(cell))
            self.records[cell.number] = state
            if state.state == "running":
                self.elsewhere[cell.number] = cell
            elif state.state == "pending":
                self._queue(cell)

    def run(self) -> None:
        with _Signals():
            try:
                with self.table:
                    while self._busy():
                        self._start_waiting()
                        self._look_elsewhere()
                        self.table.update(self.records, self._processes())
                        time.sleep(POLL)
                        self._collect()
                    self.table.update(self.records, {})
            finally:
                self._stop_all()

    def _busy(self) -> bool:
        here = self.running or any(self.waiting.values())
        return bool(here or (self.wait and self.elsewhere))

    def _processes(self) -> Mapping[int, CellProcess]:
        return {number: attempt.process for number, attempt in self.running.items()}

    def _queue(self, cell: Cell, first: bool = False) -> None:
        try:
            need = self.needs[cell]
        except Exception as error:  # the cell's own process would end with the same error
            self._end(cell, Record("failed", to_sentence(error)))
            return
        waiting = self.waiting.setdefault(need, deque())
        waiting.appendleft(cell) if first else waiting.append(cell)

    def _start_waiting(self) -> None:
        """Start waiting cells as long as devices are free."""
        for need, cells in self.waiting.items():
            while cells and (slot := self.devices.take(need)) is not None:
                cell = cells.popleft()
                if not self._start(cell, need, slot):
                    self.devices.give_back(slot)

    def _start(self, cell: Cell, need: Need, slot: DeviceSlot) -> bool:
        """Start a cell unless another process runs it, or has just ended it."""
        folder = self.sweep.place(cell)
        held = None
        try:
            held = claim(folder)
            if held is None:
                self.elsewhere[cell.number] = cell
                self.records[cell.number] = read_state(folder)
                return False
            record = read_state(folder)
            record = Record(**{key: getattr(record, key) for key in Record.__dataclass_fields__})
            if record.state in ("done", "failed"):
                self._end(cell, record)
                held.release()
                return False
            record.state, record.reason, record.attempts = "pending", None, record.attempts + 1
            write_record(folder, record)
            process = self._process(cell, need, slot, record)
        except OSError as error:  # a full disk must not end the others
            self._end(cell, Record("failed", to_sentence(error)), save=False)
            if held is not None:
                held.release()
            return False
        except BaseException:  # a signal, or no process can start: the cell belongs to nobody
            if held is not None:
                held.release()
            raise
        self.running[cell.number] = _Attempt(cell, record, process, slot, held, need)
        record.state = "running"
        self.records[cell.number] = record
        return True

    def _process(self, cell: Cell, need: Need, slot: DeviceSlot, record: Record) -> CellProcess:
        # A list of indices would not match the GPUs that the cell can see.
        renamed = len(slot.gpus) if slot.gpus and not isinstance(need.devices, int) else None
        options = Options(
            list(cell.overrides),
            asdict(self.source),
            renamed,
            record.micro_batch_size,
        )
        timeout = 60 * self.policy.minutes
        environment = slot.environment()
        return CellProcess(self.sweep.place(cell), options, environment, timeout, self.start)

    def _look_elsewhere(self) -> None:
        """Take over cells that another process has left unfinished."""
        if not self.elsewhere or time.monotonic() - self.checked_at < ELSEWHERE:
            return
        self.checked_at = time.monotonic()
        for number, cell in list(self.elsewhere.items()):
            state = read_state(self.sweep.place(cell))
            self.records[number] = state
            if state.state != "running":
                del self.elsewhere[number]
            if state.state == "pending":
                self._queue(cell)

    def _collect(self) -> None:
        for number, attempt in list(self.running.items()):
            status = attempt.process.poll()
            if status is not None:
                del self.running[number]
                self._record(attempt, status)

    def _record(self, attempt: _Attempt, status: ExitStatus, stopping: bool = False) -> None:
        """Record how an attempt ended, and queue the cell again if a restart may help."""
        cell, record = attempt.cell, attempt.record
        folder = self.sweep.place(cell)
        record.seconds = round((record.seconds or 0.0) + attempt.process.seconds, 1)
        record.reason = status.reason
        record.state = {"done": "done", "failed": "failed"}.get(status.kind, "pending")
        if status.kind == "done":
            record.score = read_score(folder)
        if status.kind == "memory":
            self._reduce_batch(attempt, status)
        if status.kind == "killed" and not stopping:
            self.kills[cell.number] = self.kills.get(cell.number, 0) + 1
            if self.kills[cell.number] > self.policy.retries:
                record.state = "failed"
                record.reason = f"{record.reason}, {record.attempts} times"
        self._end(cell, record)
        attempt.claim.release()
        self.devices.give_back(attempt.slot)
        if record.state == "pending" and status.kind in ("memory", "killed"):
            self._queue(cell, first=True)

    def _reduce_batch(self, attempt: _Attempt, status: ExitStatus) -> None:
        record, folder = attempt.record, self.sweep.place(attempt.cell)
        path = folder / f"{CONFIG}.yaml"
        data = OmegaConf.load(path).data if path.is_file() else None
        size = None
        if data is not None:
            count = count_devices(attempt.need.devices, len(self.devices.gpus))
            last = record.micro_batch_size or attempt.process.heartbeat().get("micro_batch_size")
            size = smaller_batch(data, last, count)
        if size is None:
            smallest = " with micro-batch size 1" if data is not None else ""
            record.state, record.reason = "failed", f"{status.reason}{smallest}"
        else:
            record.micro_batch_size = size
            record.reason = f"{status.reason}; restarted with micro-batch size {size}"
            clear(folder)  # the size must not change within a training

    def _end(self, cell: Cell, record: Record, save: bool = True) -> None:
        """Store the record of a cell; a full disk must not end the others."""
        self.records[cell.number] = record
        if not save:
            return
        try:
            write_record(self.sweep.place(cell), record)
        except OSError as error:
            self.table.say(f"warning: the state of {cell.label} is not stored: {error}")

    def _stop_all(self) -> None:
        """Let running cells save and end, then kill them; a second Ctrl-C kills at once."""
        deadline = time.monotonic() + self.policy.grace_seconds
        try:
            for attempt in self.running.values():
                attempt.process.stop()
            while self.running and time.monotonic() < deadline:
                time.sleep(POLL)
                for number, attempt in list(self.running.items()):
                    status = attempt.process.poll()
                    if status is not None:
                        del self.running[number]
                        self._record(attempt, status, stopping=True)
        finally:
            for attempt in self.running.values():
                attempt.process.kill()
                killed = ExitStatus("preempted", "killed when its launcher ended")
                self._record(attempt, killed, stopping=True)
            self.running = {}


class _Signals:
    """Context in which the first signal of a cluster raises Stopped, and later ones are ignored.

    Clusters send several signals in quick succession; the later ones must not undo the save. When
    the cells have ended, the signal is sent again for the handler of whoever started this process,
    such as submitit, which then queues its job again.
    """

    def __enter__(self) -> None:
        numbers = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self.old: dict[int, Any] = {n: signal.signal(n, self._raise) for n in numbers}

    def _raise(self, number: int, frame: FrameType | None) -> None:
        for later in self.old:
            signal.signal(later, signal.SIG_IGN)
        raise Stopped(number)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)
        if isinstance(error, Stopped):
            hand_on(error.number, self.old[error.number])


def smaller_batch(data: Any, now: int | None, processes: int) -> int | None:
    """Return half the micro-batch size, or the next smaller divisor of the batch per process.

    None if the micro-batch size is already 1.

    Args:
        data: the section `data` of the cell's config, for its global batch size.
        now: current micro-batch size of one process, if known.
        processes: number of processes that share the global batch.
    """
    per_process = data.global_batch_size // processes
    now = now or min(data.micro_batch_size or per_process, per_process)
    return next((size for size in range(now // 2, 0, -1) if per_process % size == 0), None)
