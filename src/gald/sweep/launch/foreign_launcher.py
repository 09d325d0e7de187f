"""A cell under another launcher than ours: joblib, submitit, Ray, or Hydra's own."""

import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from gald.sweep.launch.devices import Devices
from gald.sweep.launch.jobs import make_job, open_sweep, register, score
from gald.sweep.launch.runner import RetryPolicy, Stopped, run_jobs
from gald.sweep.manifest import Manifest, edit


def run_single(cfg: DictConfig) -> float:
    """Run the cell that a job of another launcher stands for, with all that our own gives a cell.

    It gets a process group of its own, so that several devices work inside it, and an entry in the
    sweep's manifest; what is done already is not repeated.

    Returns:
        its val/miou, not a number if it failed.
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
        if cell.state == "running":  # as an attempt of this job that was killed has left it
            cell.state, cell.reason = "pending", "its launcher ended"
    try:
        run_jobs(folder, [job], Devices(), RetryPolicy())
    except Stopped:
        sys.exit(143)
    return score(folder, Manifest.load(folder).cells[job.key])
