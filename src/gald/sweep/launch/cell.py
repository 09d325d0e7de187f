"""Process of one cell: `gald train` that ends when its parent process has ended.

It is started as `python -m gald.sweep.launch.cell FOLDER OPTIONS`. It composes the config of the
cell and stores it as `cell.yaml` in the cell's folder, so that the processes which Lightning starts
under this module's name read the same config and never start the sweep again.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from gald.run.fresh import HEARTBEAT, clear
from gald.run.preemption import exit_on_signals
from gald.sweep.launch.leave import leave_quickly

CONFIG = "cell"  # name of the resolved config in the cell's folder, without .yaml
LAUNCHER = "GALD_LAUNCHER"  # environment variable: id of the process that started the cell
POLL = 0.5  # seconds


@dataclass(frozen=True)
class Options:
    """What the process of a cell is told besides its folder.

    Args:
        overrides: Hydra overrides of the cell.
        source: where Hydra finds the config, the fields of `gald.sweep.compose.Source`.
        devices: number of devices, if `trainer.devices` does not say it or names other ones.
        micro_batch_size: micro-batch size, if smaller than in the config; evaluation batches are
            limited to it too.
    """

    overrides: list[str]
    source: Mapping[str, Any]
    devices: int | None = None
    micro_batch_size: int | None = None

    def as_text(self) -> str:
        """Return the options as one argument of a command line."""
        return json.dumps(asdict(self))


def main() -> None:
    """Watch the parent process, wait until an earlier attempt has ended, and train."""
    with exit_on_signals():
        _run()


def _run() -> None:
    first = "LOCAL_RANK" not in os.environ
    parent = int(os.environ[LAUNCHER]) if first else os.getppid()
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    if first:
        folder = Path(sys.argv[1])
        lock = FileLock(folder / "cell.lock", timeout=60)
        lock.acquire()
        sys.argv[1:] = prepare(folder, Options(**json.loads(sys.argv[2])))

    from gald.cli import run

    run("gald.training.command:main", sys.argv[1:])


def prepare(folder: Path, options: Options) -> list[str]:
    """Write the config of a cell, and return the arguments of `gald train` that run it.

    A cell with a checkpoint is resumed; the files of an attempt without one are removed.
    """
    from gald.sweep.compose import Source, compose_cell

    source = dict(options.source)
    source["searchpath"] = tuple(source["searchpath"])
    config = compose_cell(options.overrides, Source(**source), folder)
    if options.devices is not None:
        config.trainer.devices = options.devices
    if (size := options.micro_batch_size) is not None:
        config.data.micro_batch_size = size
        config.data.eval_batch_size = min(size, config.data.eval_batch_size)
    arguments = ["--config-path", str(folder.absolute()), "--config-name", CONFIG]
    if (folder / "checkpoints" / "last.ckpt").is_file():
        arguments.append("ckpt_path=last")
    else:
        clear(folder)
    _write_config(config, folder)
    return arguments


def _write_config(config: DictConfig, folder: Path) -> None:
    from gald.run.atomic import atomic_file

    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    heartbeat: dict[str, Any] = {
        "_target_": "gald.callbacks.heartbeat.Heartbeat",
        "path": str((folder / HEARTBEAT).absolute()),
    }
    content["callbacks"] = (content.get("callbacks") or {}) | {"heartbeat": heartbeat}
    content["hydra"] = {
        "run": {"dir": str(folder.absolute())},
        "job": {"name": "cell", "chdir": False},
        "job_logging": {"root": None},  # the output goes to log.txt only
        "output_subdir": None,
    }
    with atomic_file(folder / f"{CONFIG}.yaml") as partial:
        OmegaConf.save(OmegaConf.create(content), partial)


def _end_with_parent(parent: int) -> None:
    """Kill the whole process group once `parent` is no longer the parent process."""
    while os.getppid() == parent:
        time.sleep(POLL)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    leave_quickly(main)
