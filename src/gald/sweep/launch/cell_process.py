"""One start of a cell: its process group, its log, its signs of life."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gald.run.atomic import atomic_file
from gald.sweep.launch.cell import CONFIG, LAUNCHER
from gald.sweep.launch.exit_status import ExitStatus, classify_exit, kernel_kills

ENTRY = ["-m", "gald.sweep.launch.cell"]
LOG, HEARTBEAT = "log.txt", "heartbeat.json"
# What a launcher's own environment may say about processes, of which a cell has its own.
FOREIGN = ("MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "RANK", "NODE_RANK", "WORLD_SIZE")


class CellProcess:
    """Starts a cell in a process group of its own and watches it.

    The processes get one resolved config, `cell.yaml` in the cell's folder, and print to `log.txt`
    there. They end when this process ends.

    Args:
        config: the cell's config, with its folder in `output_dir`.
        places: environment variables that name its devices.
        micro_batch_size: images at once, if fewer than the config asks for; evaluation then takes
            no more either.
        patience: seconds without a sign of life after which it counts as hung.
    """

    def __init__(
        self,
        config: DictConfig,
        places: Mapping[str, str],
        micro_batch_size: int | None,
        patience: float,
    ) -> None:
        self.folder = Path(config.output_dir)
        self.patience = patience
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
        environment |= {LAUNCHER: str(os.getpid()), "PYTHONUNBUFFERED": "1"} | dict(places)
        if environment.get("SLURM_NTASKS") == "1":
            # Lightning would take the one task for all there is, and refuse to start processes.
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
        self.life, self.alive_at = 0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self.started

    def poll(self) -> ExitStatus | None:
        """How it ended, or None while it runs; what has hung is killed."""
        if self.process.poll() is None:
            if not self._lives():
                self.hung = True
                self.kill()
            else:
                return None
        self.kill()  # what is left of its group
        if self.hung:
            minutes = f"{self.patience / 60:g} minutes"
            return ExitStatus("failed", f"no progress for {minutes}; killed (see its log)")
        kernel_killed = kernel_kills() > self.kills
        finished = (self.folder / "results.json").is_file()
        return classify_exit(self.process.returncode, self.log(), finished, kernel_killed)

    def log(self) -> str:
        """What this attempt has printed."""
        with (self.folder / LOG).open("rb") as file:
            file.seek(self.log_start)
            return file.read().decode(errors="replace")

    def heartbeat(self) -> dict[str, Any]:
        """The newest sign of life, empty before the first."""
        return read_json(self.folder / HEARTBEAT)

    def stop(self) -> None:
        """Ask it to save and to end; the first process tells the others."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the whole group at once, and wait until it is gone."""
        self._signal(signal.SIGKILL)
        self.process.wait()
        deadline = time.monotonic() + 2
        while self._signal(0) and _runs(self.process.pid) and time.monotonic() < deadline:
            time.sleep(0.02)

    def _signal(self, number: int) -> bool:
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):  # macOS refuses where only zombies are left
            return False
        return True

    def _lives(self) -> bool:
        path = self.folder / HEARTBEAT
        life = path.stat().st_mtime_ns if path.is_file() else 0
        if life != self.life:
            self.life, self.alive_at = life, time.monotonic()
        return time.monotonic() - self.alive_at < self.patience


def _runs(group: int) -> bool:
    """Whether a process of a group still runs.

    In a container whose first process adopts no orphans, killed ones stay as zombies for ever.
    """
    if not Path("/proc/self/stat").is_file():  # not Linux
        return True
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has just ended
            continue
        if int(its_group) == group and state != "Z":
            return True
    return False


def clear(folder: Path) -> None:
    """Remove what an attempt has begun and another cannot go on from; its log stays."""
    for name in ("checkpoints", "wandb"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("metrics.csv", HEARTBEAT):
        (folder / name).unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object that another process replaces in one move; empty if there is none."""
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
        "job_logging": {"root": None},  # all goes to one log
        "output_subdir": None,
    }
    with atomic_file(folder / f"{CONFIG}.yaml") as partial:
        OmegaConf.save(OmegaConf.create(content), partial)
