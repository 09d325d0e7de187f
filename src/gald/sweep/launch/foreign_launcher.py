"""Cell under another launcher than gald's: joblib, submitit, Ray, or Hydra's basic launcher."""

from pathlib import Path
from typing import cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gald.sweep.cells import Sweep, declare
from gald.sweep.compose import Source
from gald.sweep.grid import GRID_SWEEPERS, command_line
from gald.sweep.launch.door import run_cell
from gald.sweep.launch.launcher import score_or_reason


def run_single(cfg: DictConfig) -> float | str:
    """Run one job of another launcher as a cell, as gald's own launcher does.

    The cell gets its own process group, so that it can use several devices. A cell that is done
    already is not repeated. If a scheduler has started several tasks for the job, they train
    together in these processes.

    Returns:
        val/miou of the cell; a text if there is none, which Optuna counts as a failed trial.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.sweep.dir)
    (cell,) = declare(folder, str(cfg.name), command_line(), [list(hydra.overrides.task)])
    # Optuna may ask for one cell twice at once, and needs the score for both trials.
    wait = not str(hydra.sweeper._target_).endswith(GRID_SWEEPERS)
    record = run_cell(Sweep.load(folder), cell, Source.of(cast(DictConfig, hydra)), wait=wait)
    return score_or_reason(record)
