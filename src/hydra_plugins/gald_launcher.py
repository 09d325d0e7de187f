"""Makes gald's launcher known to Hydra, which takes plugins from this namespace package only."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from typing_extensions import override


class GaldLauncher(Launcher):
    """Runs the cells of `gald train -m` side by side, each as a process group of its own.

    What a sweep leaves, how it resumes and what it does about failures: see `gald.sweep`.
    Multiruns of other verbs run one after the other in this process, as Hydra does by itself.

    Args:
        jobs: most cells at once; null: as many as fit on the GPUs, on a CPU one per four cores.
        jobs_per_gpu: cells that share a GPU.
        watchdog_minutes: without progress, after which a cell is killed and counts as failed.
        retries: starts of a cell after one that was killed from outside.
        grace_seconds: time that cells get to save when the sweep is stopped.
    """

    def __init__(
        self,
        jobs: int | None = None,
        jobs_per_gpu: int = 1,
        watchdog_minutes: float = 30.0,
        retries: int = 2,
        grace_seconds: float = 60.0,
    ) -> None:
        self.jobs = jobs
        self.jobs_per_gpu = jobs_per_gpu
        self.patience = (watchdog_minutes, retries, grace_seconds)
        self.plain: BasicLauncher | None = None

    @override
    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.context, self.config = hydra_context, config
        if task_function.__module__ != "gald.train":
            self.plain = BasicLauncher()
            self.plain.setup(
                hydra_context=hydra_context, task_function=task_function, config=config
            )

    @override
    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        if self.plain is not None:
            return self.plain.launch(job_overrides, initial_job_idx)
        # Hydra imports every plugin at every start: what is heavy comes here.
        from gald.sweep.launch.devices import Devices
        from gald.sweep.launch.launcher import launch
        from gald.sweep.launch.runner import RetryPolicy

        devices = Devices(self.jobs, self.jobs_per_gpu)
        return launch(
            self.context, self.config, job_overrides, devices, RetryPolicy(*self.patience)
        )
