"""Cells of a probe, one after the other in this process; several processes share a folder."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import DictConfig

from gald.device import pick_device
from gald.errors import to_sentence
from gald.probe.bench import Bench, check
from gald.probe.cell import run_cell
from gald.run.fresh import clear
from gald.sweep.cells import Cell, Sweep
from gald.sweep.claim import claim
from gald.sweep.compose import Source, compose_cell
from gald.sweep.launch.launcher import declared, refuse_other_config, results_of
from gald.sweep.launch.live_table import LiveTable
from gald.sweep.launch.runner import ELSEWHERE
from gald.sweep.state import Record, read_score, read_state, write_record

ENDED = ("done", "failed")


def launch(config: DictConfig, job_overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
    """Run the cells that a sweeper requests, except those already done; return results in order.

    It waits for cells that another process runs, and takes over those that it leaves unfinished.

    Raises:
        ValueError: the folder holds a different sweep, or its cells had other options.
    """
    sweep, cells, unique = declared(config, job_overrides)
    source = Source.of(config.hydra)
    refuse_other_config(sweep, unique, source)
    records: dict[int, Record] = {}
    bench: Bench | None = None
    with LiveTable(sweep.path, unique, logs=False) as table:
        while waiting := _look(sweep, unique, records):
            busy = len(waiting)
            for cell in waiting:
                held = claim(sweep.place(cell))
                if held is None:
                    continue
                busy -= 1
                try:
                    records[cell.number] = record = _record(sweep, cell)
                    if record.state not in ENDED:  # another process may have ended it meanwhile
                        settings = compose_cell(cell.overrides, source, sweep.place(cell))
                        bench = bench or Bench(pick_device(settings.device))
                        _look(sweep, unique, records)
                        _Run(sweep, cell, settings, table, records)(bench)
                finally:
                    held.release()
            if busy == len(waiting):
                time.sleep(ELSEWHERE)
            table.update(records, {})
    return results_of(cells, records)


def _look(sweep: Sweep, cells: Sequence[Cell], records: dict[int, Record]) -> list[Cell]:
    """Read the states of the cells that had not ended before; return those that have not yet."""
    for cell in cells:
        known = records.get(cell.number)
        if known is None or known.state not in ENDED:
            records[cell.number] = _record(sweep, cell)
    return [cell for cell in cells if records[cell.number].state not in ENDED]


def _record(sweep: Sweep, cell: Cell) -> Record:
    state = asdict(read_state(sweep.place(cell)))
    return Record(**{key: state[key] for key in Record.__dataclass_fields__})


class _Run:
    """One cell, as the live table watches it."""

    def __init__(
        self,
        sweep: Sweep,
        cell: Cell,
        config: DictConfig,
        table: LiveTable,
        records: dict[int, Record],
    ) -> None:
        self.folder, self.number, self.config = sweep.place(cell), cell.number, config
        self.table, self.records = table, records
        self.started, self.steps = time.monotonic(), 0

    @property
    def seconds(self) -> float:
        """Time since its start."""
        return time.monotonic() - self.started

    def heartbeat(self) -> dict[str, Any]:
        """Return its progress."""
        return {"step": self.steps, "steps": self.config.probe.steps}

    def __call__(self, bench: Bench) -> None:
        """Run the cell; an error is recorded, and does not stop the others."""
        record = self.records[self.number]
        record.state, record.reason, record.attempts = "pending", None, record.attempts + 1
        write_record(self.folder, record)
        record.state = "running"
        self._show({self.number: self})
        try:
            check(self.config)
            clear(self.folder)
            run_cell(self.config, bench, self.folder, self._step)
        except Exception as error:
            record.state, record.reason = "failed", to_sentence(error)
        else:
            record.state, record.score = "done", read_score(self.folder)
        record.seconds = round(self.seconds, 1)
        write_record(self.folder, record)
        self._show({})

    def _step(self, done: int) -> None:
        self.steps = done
        self._show({self.number: self})

    def _show(self, running: Mapping[int, "_Run"]) -> None:
        self.table.update(self.records, running)
