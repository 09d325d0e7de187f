"""Cell under another launcher than gald's: joblib, submitit, Ray, or Hydra's basic launcher."""

import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from gald.sweep.launch.devices import Devices
from gald.sweep.launch.jobs import make_job, open_sweep, register, score
from gald.sweep.launch.runner import RetryPolicy, Stopped, run_jobs
from gald.sweep.manifest import Manifest, edit


def run_single(cfg: DictConfig) -> float:
    """Run one job of another launcher as a cell, as gald's own launcher does.

    The cell gets its own process group, so that it can use several devices, and an entry in the
    sweep's manifest. A cell that is already done is not repeated.

    Returns:
        val/miou of the cell, nan if it failed.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.sweep.dir)
    open_sweep(folder, cfg.name)
    composed = cfg.copy()
    with open_dict(composed):
        composed.hydra = {"overrides": {"task": list(hydra.overrides.task)}}
    job = make_job(composed, Manifest.load(folder).command)
    register(folder, [job])
    with edit(folder) as manifest:
        cell = manifest.cells[job.key]
        if cell.state == "running":  # left by an attempt of this job that was killed
            cell.state, cell.reason = "pending", "its launcher ended"
    try:
        run_jobs(folder, [job], Devices(), RetryPolicy())
    except Stopped:
        sys.exit(143)
    return score(folder, Manifest.load(folder).cells[job.key])
