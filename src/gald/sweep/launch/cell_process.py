"""One attempt at a cell: its process group, its log, its heartbeat."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from gald.run.fresh import HEARTBEAT
from gald.run.results import is_finished
from gald.sweep.launch.cell import LAUNCHER, Options
from gald.sweep.launch.exit_status import ExitStatus, classify_exit, kernel_kills
from gald.sweep.state import peek

ENTRY = ["-m", "gald.sweep.launch.cell"]
LOG = "log.txt"
MARK = "GALD_ATTEMPT"  # environment variable by which the processes of an attempt are found
# Variables of the launcher's environment about distributed processes; a cell sets its own.
FOREIGN = ("MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "RANK", "NODE_RANK", "WORLD_SIZE")


class Process(Protocol):
    """What a cell needs of its first process; `subprocess.Popen` has it."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None:
        """Return its exit code, or the negative number of a signal; None while it runs."""
        ...

    def wait(self) -> int:
        """Wait for its end."""
        ...

    def send_signal(self, number: int, /) -> None:
        """Send a signal, unless it has ended."""
        ...


# Starts the first process of a cell: words of its command line, environment variables, its log.
Start = Callable[[Sequence[str], Mapping[str, str], Path], Process]


def start_cold(words: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
    """Start the first process of a cell, which imports all it needs itself."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, *ENTRY, *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


class CellProcess:
    """Running attempt at a cell, in its own process group.

    The processes print to `log.txt` in the cell's folder, and end when this process ends.

    Args:
        folder: run folder of the cell.
        options: what to run there.
        device_variables: environment variables that name its devices.
        timeout: seconds without a heartbeat after which the cell counts as hung.
        start: starts its first process, the leader of a new session.
    """

    def __init__(
        self,
        folder: Path,
        options: Options,
        device_variables: Mapping[str, str],
        timeout: float,
        start: Start = start_cold,
    ) -> None:
        self.folder = folder
        self.timeout = timeout
        self.started = time.monotonic()
        self.kills = kernel_kills()
        self.hung = False
        self.mark = uuid.uuid4().hex
        environment = {key: v for key, v in os.environ.items() if key not in FOREIGN}
        environment |= {LAUNCHER: str(os.getpid()), MARK: self.mark, "PYTHONUNBUFFERED": "1"}
        environment |= device_variables
        if environment.get("SLURM_NTASKS") == "1":
            # Otherwise Lightning relies on SLURM's single task and refuses to start processes.
            environment["SLURM_JOB_NAME"] = "interactive"
        log = self.folder / LOG
        self.log_start = log.stat().st_size if log.exists() else 0
        self.process = start([str(folder), options.as_text()], environment, log)
        self.last_beat, self.alive_at = 0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self.started

    def poll(self) -> ExitStatus | None:
        """Return how it ended, or None while it runs; kill it if it hangs."""
        if self.process.poll() is None:
            if not self._is_alive():
                self.hung = True
                self.kill()
            else:
                return None
        self.kill()  # the rest of its process group
        if self.hung:
            minutes = f"{self.timeout / 60:g} minutes"
            return ExitStatus("failed", f"no progress for {minutes}, so it was killed; see log.txt")
        kernel_killed = kernel_kills() > self.kills
        finished = is_finished(self.folder)
        code = self.process.returncode
        assert code is not None, "it has ended"
        return classify_exit(code, self.log(), finished, kernel_killed)

    def log(self) -> str:
        """Return the output of this attempt."""
        with (self.folder / LOG).open("rb") as file:
            file.seek(self.log_start)
            return file.read().decode(errors="replace")

    def heartbeat(self) -> dict[str, Any]:
        """Return the newest heartbeat; empty before the first one."""
        return peek(self.folder / HEARTBEAT)

    def stop(self) -> None:
        """Send SIGTERM, so that it saves and ends; the first process stops the others."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill all its processes, also those in a session of their own, and wait for their end."""
        self._signal(signal.SIGKILL)
        self.process.wait()
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            strays = list(_marked(f"{MARK}={self.mark}".encode()))
            for pid in strays:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if not strays and not (self._signal(0) and _group_runs(self.process.pid)):
                break
            time.sleep(0.02)

    def _signal(self, number: int) -> bool:
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):  # macOS refuses if only zombies are left
            return False
        return True

    def _is_alive(self) -> bool:
        path = self.folder / HEARTBEAT
        beat = path.stat().st_mtime_ns if path.is_file() else 0
        if beat != self.last_beat:
            self.last_beat, self.alive_at = beat, time.monotonic()
        return time.monotonic() - self.alive_at < self.timeout


def _group_runs(group: int) -> bool:
    """Return whether a process of a group still runs.

    Zombies do not count: they stay for ever in a container if its first process reaps no orphans.
    """
    if not Path("/proc/self/stat").is_file():  # not Linux
        return True
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # the process has just ended
            continue
        if int(its_group) == group and state != "Z":
            return True
    return False


def _marked(mark: bytes) -> Iterator[int]:
    """Return the processes of this user with a text in their environment, zombies left out."""
    for folder in Path("/proc").glob("[0-9]*"):  # empty where the system is not Linux
        try:
            if mark in (folder / "environ").read_bytes():
                yield int(folder.name)
        except OSError:  # it has just ended, or belongs to somebody else
            continue
