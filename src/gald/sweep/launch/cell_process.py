"""One attempt at a cell: its process group, its log, its heartbeat."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gald.run.atomic import atomic_file
from gald.run.fresh import HEARTBEAT, clear
from gald.run.results import is_finished
from gald.sweep.launch.cell import CONFIG, LAUNCHER
from gald.sweep.launch.exit_status import ExitStatus, classify_exit, kernel_kills

ENTRY = ["-m", "gald.sweep.launch.cell"]
LOG = "log.txt"
# Variables of the launcher's environment about distributed processes; a cell sets its own.
FOREIGN = ("MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "RANK", "NODE_RANK", "WORLD_SIZE")


class CellProcess:
    """Running attempt at a cell, in its own process group.

    The processes get one resolved config, `cell.yaml` in the cell's folder, and print to `log.txt`
    there. They end when this process ends.

    Args:
        config: config of the cell, with its folder in `output_dir`.
        device_variables: environment variables that name its devices.
        micro_batch_size: micro-batch size, if smaller than in the config; evaluation batches are
            limited to it too.
        timeout: seconds without a heartbeat after which the cell counts as hung.
    """

    def __init__(
        self,
        config: DictConfig,
        device_variables: Mapping[str, str],
        micro_batch_size: int | None,
        timeout: float,
    ) -> None:
        self.folder = Path(config.output_dir)
        self.timeout = timeout
        self.started = time.monotonic()
        self.kills = kernel_kills()
        self.hung = False
        arguments = ["--config-path", str(self.folder), "--config-name", CONFIG]
        if (self.folder / "checkpoints" / "last.ckpt").is_file():
            arguments.append("ckpt_path=last")
        else:
            clear(self.folder)
        if micro_batch_size is not None:
            evaluated = min(micro_batch_size, config.data.eval_batch_size)
            arguments += [f"data.micro_batch_size={micro_batch_size}"]
            arguments += [f"data.eval_batch_size={evaluated}"]
        _write_config(config, self.folder)
        environment = {key: v for key, v in os.environ.items() if key not in FOREIGN}
        environment |= {LAUNCHER: str(os.getpid()), "PYTHONUNBUFFERED": "1"} | dict(
            device_variables
        )
        if environment.get("SLURM_NTASKS") == "1":
            # Otherwise Lightning relies on SLURM's single task and refuses to start processes.
            environment["SLURM_JOB_NAME"] = "interactive"
        log = self.folder / LOG
        self.log_start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *ENTRY, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
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
        return classify_exit(self.process.returncode, self.log(), finished, kernel_killed)

    def log(self) -> str:
        """Return the output of this attempt."""
        with (self.folder / LOG).open("rb") as file:
            file.seek(self.log_start)
            return file.read().decode(errors="replace")

    def heartbeat(self) -> dict[str, Any]:
        """Return the newest heartbeat; empty before the first one."""
        return read_json(self.folder / HEARTBEAT)

    def stop(self) -> None:
        """Send SIGTERM, so that it saves and ends; the first process stops the others."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the whole process group, and wait until it has ended."""
        self._signal(signal.SIGKILL)
        self.process.wait()
        deadline = time.monotonic() + 2
        while self._signal(0) and _group_runs(self.process.pid) and time.monotonic() < deadline:
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


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that another process replaces atomically; empty if it is missing."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _write_config(config: DictConfig, folder: Path) -> None:
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    content["callbacks"] = (content.get("callbacks") or {}) | {
        "heartbeat": {
            "_target_": "gald.callbacks.heartbeat.Heartbeat",
            "path": str(folder / HEARTBEAT),
        }
    }
    content["hydra"] = {
        "run": {"dir": str(folder)},
        "job": {"name": "cell", "chdir": False},
        "job_logging": {"root": None},  # the output goes to log.txt only
        "output_subdir": None,
    }
    with atomic_file(folder / f"{CONFIG}.yaml") as partial:
        OmegaConf.save(OmegaConf.create(content), partial)
