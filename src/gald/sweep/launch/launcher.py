"""Hydra multirun as a sweep: every cell runs in its own process group, and its end is recorded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from typing_extensions import override

from gald.sweep.launch.devices import Devices
from gald.sweep.launch.jobs import (
    Job,
    forgotten_if_empty,
    make_job,
    open_sweep,
    placed,
    recover,
    register,
    score,
)
from gald.sweep.launch.runner import RetryPolicy, Stopped, run_jobs
from gald.sweep.manifest import Manifest


@dataclass
class NoScore(JobReturn):
    """Result of a cell without a score: returns a text, where JobReturn would end the sweep.

    Hydra's grid sweeper ignores it; Optuna counts a value that is no number as a failed trial.
    """

    @property
    @override
    def return_value(self) -> str:  # ty: ignore[incompatible-property-override]
        return self._return_value


def launch(
    context: HydraContext,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    devices: Devices,
    policy: RetryPolicy,
) -> list[JobReturn]:
    """Run the cells that a sweeper requests, except those already done; return results in order.

    Raises:
        ValueError: another launcher runs this sweep, or the folder holds a different one.
    """
    folder = Path(config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with forgotten_if_empty(folder), FileLock(folder / "launcher.lock", timeout=0):
            return _launch(context, config, job_overrides, folder, devices, policy)
    except Timeout:
        raise ValueError(
            f"another process runs the sweep in {folder}; wait for it, or stop it first"
        ) from None
    except (KeyboardInterrupt, Stopped) as stop:
        name = str(stop) or "SIGINT"
        Console(markup=False, emoji=False, stderr=True).print(
            f"stopped ({name}); repeat the command to resume, "
            f"gald sweep status {folder} shows the cells",
            soft_wrap=True,
            highlight=False,
        )
        raise SystemExit(130 if isinstance(stop, KeyboardInterrupt) else 143) from None


def _launch(
    context: HydraContext,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    folder: Path,
    devices: Devices,
    policy: RetryPolicy,
) -> list[JobReturn]:
    typed = [str(override) for override in config.hydra.overrides.task]
    composed = [context.config_loader.load_sweep_config(config, list(o)) for o in job_overrides]
    jobs = [make_job(one, typed) for one in composed]
    unique = {job.key: job for job in jobs}
    open_sweep(folder, config.name)
    register(folder, list(unique.values()))
    recover(folder)
    _announce(folder, jobs, unique)
    run_jobs(folder, list(unique.values()), devices, policy)
    manifest = Manifest.load(folder)
    return [_result(job, one, manifest, folder) for job, one in zip(jobs, composed, strict=True)]


def _announce(folder: Path, jobs: Sequence[Job], unique: dict[str, Job]) -> None:
    cells = [Manifest.load(folder).cells[key] for key in unique]
    done, failed = (sum(c.state == state for c in cells) for state in ("done", "failed"))
    words = [f"sweep {folder}: {len(unique)} cells"]
    if len(unique) < len(jobs):
        words.append(f"{len(jobs) - len(unique)} duplicates left out")
    if done:
        words.append(f"{done} done already")
    if failed:
        words.append(f"{failed} failed before (gald sweep retry {folder} lets them run again)")
    Console(markup=False, emoji=False).print(", ".join(words), soft_wrap=True, highlight=False)


def _result(job: Job, composed: DictConfig, manifest: Manifest, folder: Path) -> JobReturn:
    cell = manifest.cells[job.key]
    done = cell.state == "done"
    result = JobReturn() if done else NoScore()
    result.status = JobStatus.COMPLETED if done else JobStatus.FAILED
    result._return_value = score(folder, cell) if done else f"{cell.state}: {cell.reason}"
    result.overrides = job.overrides
    result.cfg = placed(job, folder, cell)
    result.hydra_cfg = OmegaConf.create({"hydra": composed.hydra})
    result.working_dir = str(Path.cwd())
    result.task_name = "train"
    return result
