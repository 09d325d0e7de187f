"""Plugins for gald's launcher and sweeper; Hydra loads plugins only from this namespace package."""

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from typing_extensions import override

from gald.options.ranges import Count, NotNegative, Positive, Whole
from gald.options.roots import SWEPT

if TYPE_CHECKING:
    from gald.sweep.launch.cell_process import Start


class GaldLauncher(Launcher):
    """Hydra launcher that runs the cells of `gald train -m`, each in its own process group.

    As many cells run side by side as fit on the devices of this machine. See `gald.sweep` for the
    files of a sweep, resuming and failures. Multiruns of other verbs run one job after the other
    in this process, as with Hydra's basic launcher.

    Args:
        jobs: most cells at once; null: as many as fit on the GPUs, on a CPU one per four cores.
        jobs_per_gpu: cells that share a GPU.
        watchdog_minutes: minutes without progress after which a cell is killed and counts as
            failed.
        retries: number of restarts of a cell that was killed from outside.
        grace_seconds: time in which cells can save when the sweep is stopped.
        warm: start each cell as a copy of a process that has imported everything; Linux only.
    """

    def __init__(
        self,
        jobs: Count | None = None,
        jobs_per_gpu: Count = 1,
        watchdog_minutes: Positive = 30.0,
        retries: Whole = 2,
        grace_seconds: NotNegative = 60.0,
        warm: bool = False,
    ) -> None:
        self.options: dict[str, Any] = {
            "jobs": jobs,
            "jobs_per_gpu": jobs_per_gpu,
            "watchdog_minutes": watchdog_minutes,
            "retries": retries,
            "grace_seconds": grace_seconds,
            "warm": warm,
        }
        self.jobs = jobs
        self.jobs_per_gpu = jobs_per_gpu
        self.patience = (watchdog_minutes, retries, grace_seconds)
        self.warm = warm
        self.start: Start | None = None
        self.plain: BasicLauncher | None = None

    @override
    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config = config
        if task_function.__module__ != "gald.training.command":
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
        # Imported here, because Hydra imports every plugin at every start.
        from gald.options.check import check_arguments
        from gald.sweep.launch.devices import Devices
        from gald.sweep.launch.launcher import launch
        from gald.sweep.launch.runner import RetryPolicy

        check_arguments(GaldLauncher, self.options, "hydra.launcher")
        devices, policy = Devices(self.jobs, self.jobs_per_gpu), RetryPolicy(*self.patience)
        return launch(self.config, job_overrides, devices, policy, self._start())

    def _start(self) -> "Start":
        """Return how cells start; some sweepers call `launch` often, and imports are done once."""
        from gald.sweep.launch.cell_process import start_cold
        from gald.sweep.launch.warm import WarmStart

        if self.start is None:
            self.start = start_cold
            if self.warm:
                self.start = warm = WarmStart()
                weakref.finalize(self, warm.close)
        return self.start


class ProbeLauncher(Launcher):
    """Hydra launcher that runs the cells of `gald probe -m`, one after the other in this process.

    Several processes may run the same command beside each other; they share the cells.
    """

    @override
    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config, self.verb = config, task_function.__module__

    @override
    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        # Imported here, because Hydra imports every plugin at every start.
        from gald.probe.launch import launch

        if self.verb != "gald.probe.command":
            raise ValueError(
                "hydra/launcher=probe runs the cells of gald probe; leave it out, or use gald probe"
            )
        return launch(self.config, job_overrides)


class GaldSweeper(BasicSweeper):
    """Hydra's basic sweeper, except that it does not compose all cells before the first starts.

    A quarter of a second per cell is an hour for ten thousand. Instead it composes a few cells in
    which every value occurs; each cell is composed where it runs.

    Args:
        max_batch_size: null; kept for Hydra.
        params: values by key, as on the command line.
        primary: the one contrast that the sweep is about, as `ld=mask given ga != none on mIoU`;
            null: everything is exploratory. See `gald.sweep.table.primary`.
    """

    def __init__(
        self,
        max_batch_size: int | None = None,
        params: dict[str, Any] | None = None,
        primary: str | None = None,
    ) -> None:
        super().__init__(max_batch_size, params)
        self.primary = primary

    @override
    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.roots = SWEPT.get(str(config.hydra.job.config_name))

    @override
    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        if self.roots is None:
            super().validate_batch_is_legal(batch)
            return
        # Imported here, because Hydra imports every plugin at every start.
        from gald.sweep.grid import check_levels

        assert self.hydra_context is not None and self.config is not None, "it is set up"
        loader, config = self.hydra_context.config_loader, self.config
        check_levels(batch, lambda words: loader.load_sweep_config(config, words), self.roots)

    @override
    def sweep(self, arguments: list[str]) -> Any:
        from gald.sweep.launch.report import forgotten_if_empty

        assert self.hydra_context is not None and self.config is not None, "it is set up"
        if self.roots is not None:
            from gald.sweep.grid import check_grid

            check_grid(self.config, self.hydra_context.config_loader)
        with forgotten_if_empty(Path(self.config.hydra.sweep.dir)):
            return super().sweep(arguments)
