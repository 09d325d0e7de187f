"""Hydra multirun as a sweep: every cell runs in its own process group, and its end is recorded."""

import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from typing_extensions import override

from gald.run.preemption import PREEMPTED
from gald.run.resume import changed_options, list_options
from gald.run.shape import read_config_file
from gald.sweep.cells import Cell, Sweep, declare
from gald.sweep.compose import Source, compose_cell
from gald.sweep.grid import command_line, primary_of
from gald.sweep.launch.cell_process import Start, start_cold
from gald.sweep.launch.devices import Devices
from gald.sweep.launch.runner import RetryPolicy, Stopped, run_cells
from gald.sweep.state import Record


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
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    devices: Devices,
    policy: RetryPolicy,
    start: Start = start_cold,
) -> list[JobReturn]:
    """Run the cells that a sweeper requests, except those already done; return results in order.

    Raises:
        ValueError: the folder holds a different sweep.
    """
    sweep, cells, unique = declared(config, job_overrides)
    records = run_and_report(sweep, unique, Source.of(config.hydra), devices, policy, start=start)
    return results_of(cells, records)


def declared(
    config: DictConfig, job_overrides: Sequence[Sequence[str]]
) -> tuple[Sweep, list[Cell], list[Cell]]:
    """Declare the cells that a sweeper requests; return the sweep, the cells, and each cell once.

    Raises:
        ValueError: the folder holds a different sweep.
    """
    folder = Path(config.hydra.sweep.dir)
    command = command_line(config.hydra.job.config_name)
    cells = declare(folder, str(config.name), command, job_overrides, primary_of(config.hydra))
    unique = list({cell.number: cell for cell in cells}.values())
    _announce(folder, len(unique), len(cells))
    return Sweep.load(folder), cells, unique


def results_of(cells: Sequence[Cell], records: Mapping[int, Record]) -> list[JobReturn]:
    """Return what Hydra's sweeper gets for each cell."""
    return [_result(cell, records[cell.number]) for cell in cells]


def run_and_report(
    sweep: Sweep,
    cells: Sequence[Cell],
    source: Source,
    devices: Devices,
    policy: RetryPolicy,
    wait: bool = True,
    start: Start = start_cold,
) -> dict[int, Record]:
    """Run cells; if a signal stops them, say how to go on, and exit with code 75 or 130.

    Raises:
        ValueError: cells that were trained have another config than they would have now.
    """
    refuse_other_config(sweep, cells, source)
    try:
        return run_cells(sweep, cells, source, devices, policy, wait, start)
    except (KeyboardInterrupt, Stopped) as stop:
        interrupted = isinstance(stop, KeyboardInterrupt)
        Console(markup=False, emoji=False, stderr=True).print(
            f"stopped ({'SIGINT' if interrupted else stop}); gald sweep run {sweep.path} resumes, "
            f"gald sweep status {sweep.path} shows the cells",
            soft_wrap=True,
            highlight=False,
        )
        sys.exit(128 + signal.SIGINT if interrupted else PREEMPTED)


def refuse_other_config(sweep: Sweep, cells: Sequence[Cell], source: Source) -> None:
    """Compare the first trained cell with what its overrides mean now.

    Raises:
        ValueError: it was trained with other options.
    """
    trained = (cell for cell in cells if (sweep.place(cell) / "config.yaml").is_file())
    cell = next(trained, None)
    if cell is None:
        return
    folder = sweep.place(cell)
    before = read_config_file(folder / "config.yaml")
    now = cast(dict[str, Any], OmegaConf.to_container(compose_cell(cell.overrides, source, folder)))
    if changed := changed_options(before, now):
        raise ValueError(
            f"{folder} was trained with other options than the config files now say "
            f"({list_options(changed)}); undo the change, or choose a new folder with name=NAME"
        )


def _announce(folder: Path, unique: int, declared: int) -> None:
    words = [f"sweep {folder}: {unique} cells"]
    if unique < declared:
        words.append(f"{declared - unique} duplicates left out")
    Console(markup=False, emoji=False).print(", ".join(words), soft_wrap=True, highlight=False)


def score_or_reason(record: Record) -> float | str:
    """Return val/miou of a cell; a text if it has none, also if it is undefined.

    Optuna counts a text as a failed trial, and ends the search at a value that is not finite.
    """
    if record.state != "done":
        return f"{record.state}: {record.reason}"
    return "done: val/miou is undefined" if record.score is None else record.score


def _result(cell: Cell, record: Record) -> JobReturn:
    result = JobReturn() if record.state == "done" else NoScore()
    result.status = JobStatus.COMPLETED if record.state == "done" else JobStatus.FAILED
    result._return_value = score_or_reason(record)
    result.overrides = list(cell.overrides)
    result.cfg = OmegaConf.create({})
    result.hydra_cfg = OmegaConf.create({})
    result.working_dir = str(Path.cwd())
    result.task_name = "train"
    return result
