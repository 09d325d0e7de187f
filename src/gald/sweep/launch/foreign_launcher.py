"""Cell under another launcher than gald's: joblib, submitit, or Hydra's basic launcher."""

import os
from pathlib import Path
from typing import cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gald.sweep.cells import Sweep, declare
from gald.sweep.compose import Source
from gald.sweep.grid import GRID_SWEEPERS, command_line
from gald.sweep.launch.devices import count_devices, visible_gpus
from gald.sweep.launch.door import run_cell
from gald.sweep.launch.launcher import score_or_reason


def run_single(cfg: DictConfig) -> float | str:
    """Run one job of another launcher as a cell, as gald's own launcher does.

    The cell gets its own process group, so that it can use several devices. A cell that is done
    already is not repeated. If a scheduler has started several tasks for the job, they train
    together in these processes; for submitit on this machine, the first task starts them.

    Returns:
        val/miou of the cell; a text if there is none, which Optuna counts as a failed trial.
    """
    if _is_further_task(cfg):
        return "this task is not the first of its job"
    hydra = HydraConfig.get()
    folder = Path(hydra.sweep.dir)
    (cell,) = declare(folder, str(cfg.name), command_line("train"), [list(hydra.overrides.task)])
    # Optuna may ask for one cell twice at once, and needs the score for both trials.
    wait = not str(hydra.sweeper._target_).endswith(GRID_SWEEPERS)
    record = run_cell(Sweep.load(folder), cell, Source.of(cast(DictConfig, hydra)), wait=wait)
    return score_or_reason(record)


def _is_further_task(cfg: DictConfig) -> bool:
    """Return whether this is not the first of several tasks that submitit starts on this machine.

    Raises:
        ValueError: the cell has another number of processes than there are tasks.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") != "local":
        return False
    tasks = int(os.environ.get("SUBMITIT_LOCAL_NTASKS", "1"))
    processes = count_devices(cfg.trainer.devices, len(visible_gpus()))
    if tasks > 1 and processes != tasks:
        raise ValueError(
            f"hydra.launcher.tasks_per_node is {tasks}, but trainer.devices is "
            f"{cfg.trainer.devices}; choose trainer.devices={tasks}"
        )
    return int(os.environ.get("SUBMITIT_LOCAL_GLOBALID", "0")) > 0
