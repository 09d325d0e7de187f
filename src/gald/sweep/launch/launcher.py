"""Hydra's multirun as a sweep: every cell a process group of its own, every ending written down."""

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
from gald.sweep.launch.jobs import Job, make_job, open_sweep, placed, recover, register, score
from gald.sweep.launch.runner import RetryPolicy, Stopped, run_jobs
from gald.sweep.manifest import Manifest


@dataclass
class NoScore(JobReturn):
    """The answer of a cell without a score: a text, where Hydra's own would end the sweep.

    Hydra's grids pass it over; Optuna takes what is no number for a failed trial.
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
    patience: RetryPolicy,
) -> list[JobReturn]:
    """Run the cells that a sweeper asks for, those left out that are done; their answers in order.

    Raises:
        ValueError: another launcher runs this sweep, or the folder holds a different one.
    """
    folder = Path(config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "launcher.lock", timeout=0):
            return _launch(context, config, job_overrides, folder, devices, patience)
    except Timeout:
        raise ValueError(
            f"another process runs the sweep in {folder}; wait for it, or stop it first"
        ) from None
    except (KeyboardInterrupt, Stopped) as stop:
        say = Console(stderr=True).print
        name = str(stop) or "SIGINT"
        say(f"stopped ({name}); the same command goes on, gald sweep status {folder} tells more")
        raise SystemExit(130 if isinstance(stop, KeyboardInterrupt) else 143) from None


def _launch(
    context: HydraContext,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    folder: Path,
    devices: Devices,
    patience: RetryPolicy,
) -> list[JobReturn]:
    typed = [str(override) for override in config.hydra.overrides.task]
    composed = [context.config_loader.load_sweep_config(config, list(o)) for o in job_overrides]
    jobs = [make_job(one, typed) for one in composed]
    unique = {job.key: job for job in jobs}
    open_sweep(folder, config.name)
    register(folder, list(unique.values()))
    recover(folder)
    _announce(folder, jobs, unique)
    run_jobs(folder, list(unique.values()), devices, patience)
    manifest = Manifest.load(folder)
    return [_answer(job, one, manifest, folder) for job, one in zip(jobs, composed, strict=True)]


def _announce(folder: Path, jobs: Sequence[Job], unique: dict[str, Job]) -> None:
    cells = [Manifest.load(folder).cells[key] for key in unique]
    done, failed = (sum(c.state == state for c in cells) for state in ("done", "failed"))
    words = [f"sweep {folder}: {len(unique)} cells"]
    if len(unique) < len(jobs):
        words.append(f"{len(jobs) - len(unique)} duplicates left out")
    if done:
        words.append(f"{done} done already")
    if failed:
        words.append(f"{failed} failed before (gald sweep retry {folder} tries them again)")
    Console().print(", ".join(words), soft_wrap=True, highlight=False)


def _answer(job: Job, composed: DictConfig, manifest: Manifest, folder: Path) -> JobReturn:
    cell = manifest.cells[job.key]
    done = cell.state == "done"
    answer = JobReturn() if done else NoScore()
    answer.status = JobStatus.COMPLETED if done else JobStatus.FAILED
    answer._return_value = score(folder, cell) if done else f"{cell.state}: {cell.reason}"
    answer.overrides = job.overrides
    answer.cfg = placed(job, folder, cell)
    answer.hydra_cfg = OmegaConf.create({"hydra": composed.hydra})
    answer.working_dir = str(Path.cwd())
    answer.task_name = "train"
    return answer
