"""State of a cell, from the files in its folder: `cell.json`, `owner.json` and the results."""

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from gald.options.ranges import Count, Finite, NotNegative, Whole
from gald.run.atomic import atomic_file
from gald.run.results import is_finished
from gald.run.shape import check_shape
from gald.run.text_file import read_json

STATES = ("pending", "running", "done", "failed")
RECORD, OWNER = "cell.json", "owner.json"
# An owner touches owner.json this often; one on another machine is believed dead after the second.
SIGN_OF_LIFE, SILENCE = 20.0, 180.0  # seconds


@dataclass
class Record:
    """What the attempts at a cell have left; the content of `cell.json`.

    Args:
        state: pending, done or failed; whether it runs is known by its owner alone.
        reason: why it failed, or why it is pending again; one sentence.
        attempts: number of starts.
        seconds: time of all attempts together.
        micro_batch_size: reduced micro-batch size after running out of memory.
        score: val/miou, once it is done; null if it is undefined.
    """

    state: str = "pending"
    reason: str | None = None
    attempts: int = 0
    seconds: float | None = None
    micro_batch_size: int | None = None
    score: float | None = None


@dataclass
class CellState(Record):
    """State of a cell for readers.

    Args:
        state: pending, running, done or failed.
        owner: who runs it, as text; null unless it is running.
        silent: seconds since the last sign of life of a running cell.
    """

    owner: str | None = None
    silent: float | None = None


_GO_ON = "delete it, and the cell goes on from its checkpoints"
_SHAPE = {
    "state": Literal["pending", "done", "failed"],
    "reason": str | None,
    "attempts": Whole,
    "seconds": NotNegative | None,
    "micro_batch_size": Count | None,
    "score": Finite | None,
}


def read_record(folder: Path) -> Record:
    """Read what the attempts at a cell have left; a cell without a record has not begun.

    Raises:
        ValueError: the record is damaged.
    """
    path = folder / RECORD
    try:
        content = read_json(path, _GO_ON)
    except FileNotFoundError:
        return Record()
    check_shape(path, content, _SHAPE, _GO_ON)
    return Record(**{key: content[key] for key in _SHAPE})


def write_record(folder: Path, record: Record) -> None:
    """Write the record of a cell, atomically."""
    with atomic_file(folder / RECORD) as partial:
        partial.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")


def read_state(folder: Path) -> CellState:
    """Return the state of a cell; a damaged file becomes the reason of a failed one."""
    try:
        state = CellState(**asdict(read_record(folder)))
    except ValueError as error:
        return CellState("failed", str(error))
    owner, results = read_owner(folder), folder / "results.json"
    # A done cell is owned for a moment by a process that looks whether it is done.
    is_done = state.state == "done" and results.exists()
    if owner is not None and owner.alive and not is_done:
        state.state, state.owner = "running", str(owner)
        state.silent = _silence(folder, owner.since)
        return state
    if state.state == "done" and not is_done:
        state.state, state.reason, state.score = "pending", "its results were deleted", None
    elif state.state == "pending" and results.exists() and is_finished(folder):
        state.state, state.reason = "done", None  # its launcher ended before it could note it
        state.score = read_score(folder)
    elif state.state == "pending" and owner is not None:
        state.reason = f"{owner} ended"
    return state


def read_score(folder: Path) -> float | None:
    """Return val/miou from the results of a finished cell; None if it is undefined."""
    value = peek(folder / "results.json").get("val/miou")
    return None if value is None else float(value)


@dataclass(frozen=True)
class Owner:
    """Process that runs a cell.

    Args:
        host: name of its machine.
        pid: process id there.
        started: start time of the process, in the kernel's ticks; tells it from a later process
            with the same id.
        job: id of its job in a cluster; null elsewhere.
        since: time at which it took the cell, as seconds of the epoch.
        age: seconds since its last sign of life.
    """

    host: str
    pid: int
    started: int | None
    job: str | None
    since: float
    age: float = 0.0

    @classmethod
    def this_process(cls) -> "Owner":
        """Return the owner that this process is."""
        names = ("SLURM_ARRAY_JOB_ID", "SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
        job = next((os.environ[name] for name in names if name in os.environ), None)
        return cls(socket.gethostname(), os.getpid(), _start_of(os.getpid()), job, time.time())

    @property
    def alive(self) -> bool:
        """Whether it still runs, or may still run."""
        if self.host != socket.gethostname():
            return self.age < SILENCE
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):  # no process has so large an id
            return False
        except PermissionError:
            pass
        return self.started is None or _start_of(self.pid) == self.started

    def __str__(self) -> str:
        job = f" (job {self.job})" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"


_OWNER_SHAPE = {
    "host": str,
    "pid": Count,
    "started": Whole | None,
    "job": str | None,
    "since": Finite,
}


def read_owner(folder: Path) -> Owner | None:
    """Return who runs a cell, or ran it without an orderly end; None if nobody does.

    A record that is damaged, as by a crash, names nobody.
    """
    path = folder / OWNER
    try:
        age = time.time() - path.stat().st_mtime
        content = read_json(path)
        check_shape(path, content, _OWNER_SHAPE, _GO_ON)
    except (FileNotFoundError, ValueError):
        return None
    return Owner(age=age, **{key: content[key] for key in _OWNER_SHAPE})


def peek(path: Path) -> dict[str, Any]:
    """Read a JSON object that another process replaces atomically; empty if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _silence(folder: Path, since: float) -> float:
    """Return the seconds since a running cell last wrote its heartbeat, or was started."""
    with suppress(FileNotFoundError):
        since = max(since, (folder / "heartbeat.json").stat().st_mtime)
    return max(0.0, time.time() - since)


def _start_of(pid: int) -> int | None:
    """Return when a process started, in the kernel's ticks.

    None if it is dead, also if nobody has collected its exit code, or where /proc is missing.
    """
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else int(words[19])
