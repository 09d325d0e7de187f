"""One cell of a sweep, run by whoever asks for it: a launcher of Hydra, a scheduler, a person."""

import importlib
import json
import os
import signal
import time
import uuid
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from gald.errors import to_sentence
from gald.run.atomic import atomic_file
from gald.run.preemption import SIGNALS, Preempted, hand_on
from gald.run.results import is_finished
from gald.run.run_id import agreed_in_torchrun, in_torchrun
from gald.sweep.cells import Cell, Sweep
from gald.sweep.claim import claim
from gald.sweep.compose import Source
from gald.sweep.launch.cell import CONFIG, Options, prepare
from gald.sweep.launch.devices import Devices
from gald.sweep.launch.exit_status import ExitStatus, classify_exit
from gald.sweep.launch.launcher import run_and_report
from gald.sweep.launch.runner import RetryPolicy
from gald.sweep.state import Record, peek, read_record, read_score, read_state, write_record

START = "start.json"  # tells the tasks of a job that the first of them has prepared the cell
PATIENCE = 300.0  # seconds in which the first task must have done so
STEP = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
STEP += ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")


def run_cell(
    sweep: Sweep,
    cell: Cell,
    source: Source,
    devices: Devices | None = None,
    wait: bool = False,
) -> Record:
    """Run a cell, unless it is done, or another process runs it; returns its record.

    A cell that a signal stops saves its state, and the process exits with code 75.

    Args:
        sweep: the sweep.
        cell: one of its cells.
        source: where Hydra finds its config.
        devices: devices to choose from; null: those of this machine.
        wait: whether to wait if another process runs the cell, and take it over if that one
            leaves it unfinished.
    """
    if _tasks() > 1:
        return _run_as_task(sweep, cell, source)
    policy = RetryPolicy()
    records = run_and_report(sweep, [cell], source, devices or Devices(), policy, wait)
    return records[cell.number]


def _tasks() -> int:
    """Return the number of processes that a scheduler has started for this job step.

    Raises:
        ValueError: SLURM would start several, but srun is missing.
    """
    if os.environ.get("WORLD_SIZE"):
        return int(os.environ["WORLD_SIZE"])
    tasks = int(os.environ.get("SLURM_NTASKS") or 1)
    if tasks > 1 and "SLURM_STEP_ID" not in os.environ:
        raise ValueError(
            f"this job has {tasks} tasks (SLURM_NTASKS), but only one process was started; write "
            "srun before the command: srun gald sweep run FOLDER --cell N"
        )
    return tasks


def _run_as_task(sweep: Sweep, cell: Cell, source: Source) -> Record:
    """Train in this process, which is one of the tasks of a job; the first one keeps the books."""
    folder = sweep.place(cell)
    first = int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) == 0
    if not first:
        if not _wait_for_first(folder):
            return read_state(folder)
        _train(folder)
        return Record("done")  # the first task has yet to write it down
    held = claim(folder)
    state = read_state(folder)
    if held is None or state.state == "failed" or _is_done(folder):
        _tell_others(folder, go=False)
        if held is not None:
            held.release()
        return read_state(folder)
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    signalled = None
    started, record = time.monotonic(), read_record(folder)
    record.attempts += 1
    status = ExitStatus("failed", "it ended without a message")
    try:
        write_record(folder, record)
        prepare(folder, Options(list(cell.overrides), asdict(source)))
        _tell_others(folder, go=True)
        _train(folder)
        status = classify_exit(0, "", is_finished(folder), kernel_killed=False)
    except SystemExit as stop:
        status = classify_exit(int(stop.code or 0), "", False, kernel_killed=False)
        signalled = stop.number if isinstance(stop, Preempted) else None
        raise
    except Exception as error:
        status = ExitStatus("failed", to_sentence(error))
        raise
    finally:
        record.state = {"done": "done", "preempted": "pending"}.get(status.kind, "failed")
        record.reason = status.reason
        record.seconds = round((record.seconds or 0.0) + time.monotonic() - started, 1)
        record.score = read_score(folder) if record.state == "done" else None
        write_record(folder, record)
        with suppress(OSError):  # a task that has not read it yet would wait for a dead one
            (folder / START).unlink(missing_ok=True)
        held.release()
        hand_on(signalled, handlers.get(signalled or 0))
    return record


def _is_done(folder: Path) -> bool:
    return read_record(folder).state == "done" and is_finished(folder)


def _train(folder: Path) -> None:
    """Train with the config that the first task has prepared."""
    config = OmegaConf.load(folder / f"{CONFIG}.yaml")
    assert isinstance(config, DictConfig)
    config.pop("hydra")
    if (folder / "checkpoints" / "last.ckpt").is_file():
        config.ckpt_path = "last"
    importlib.import_module("gald.training.train").train(config)  # it imports this module


def _tell_others(folder: Path, go: bool) -> None:
    with atomic_file(folder / START) as partial:
        partial.write_text(json.dumps({"job": _job_step(), "go": go}) + "\n", encoding="utf-8")


def _wait_for_first(folder: Path) -> bool:
    """Wait until the first task has prepared the cell; returns whether to train."""
    deadline, own = time.monotonic() + PATIENCE, _job_step()
    while time.monotonic() < deadline:
        told = peek(folder / START)
        if told.get("job") == own:
            return bool(told.get("go"))
        time.sleep(0.2)
    raise ValueError(
        f"the first task of this job has not prepared {folder} within {PATIENCE:.0f} seconds; "
        "see its output, and check that all tasks share this folder"
    )


def _job_step() -> list[str]:
    """Return what is equal in all tasks of a job step, and new at each start of the job.

    Without --rdzv-id all starts of torchrun have the same id, and a given one may be used again.
    """
    start = agreed_in_torchrun("cell", uuid.uuid4().hex) if in_torchrun() else ""
    return [*(os.environ.get(name, "") for name in STEP), start]
