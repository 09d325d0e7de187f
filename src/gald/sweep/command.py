"""`gald sweep ACTION FOLDER`: plan and check a sweep, and repeat its failed cells."""

import importlib
import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from gald.cli import Arguments

if TYPE_CHECKING:
    from gald.sweep.cells import Cell
    from gald.sweep.state import CellState

WATCH = 5.0  # seconds between two looks at a sweep
ACTIONS = {
    "plan": (
        "gald.sweep.plan.plan:main",
        "cells, time, memory, seeds: gald sweep plan model/ga=...",
    ),
    "run": (
        "gald.sweep.command:run_cells",
        "run the cells that are not done, or one: gald sweep run FOLDER --cell 3",
    ),
    "audit": (
        "gald.sweep.table.consistency:main",
        "differences besides the factors: gald sweep audit FOLDER",
    ),
    "status": ("gald.sweep.command:status", "state of each cell: gald sweep status FOLDER"),
    "retry": ("gald.sweep.command:retry", "let failed cells run again: gald sweep retry FOLDER"),
}
USAGE = "usage: gald sweep ACTION ...\n\n" + "\n".join(
    f"  {action:<8} {text}" for action, (_, text) in ACTIONS.items()
)


def main() -> int | None:
    """Run the action that the command line names; returns the exit code.

    Raises:
        ValueError: there is no such action.
    """
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    action, *rest = arguments
    if action not in ACTIONS:
        raise ValueError(f"sweep has no action {action!r}; choose one of {', '.join(ACTIONS)}")
    module, _, function = ACTIONS[action][0].partition(":")
    sys.argv = [sys.argv[0], *rest]
    return getattr(importlib.import_module(module), function)()


def one_folder(action: str) -> Path:
    """Return the sweep folder from the rest of the command line of `gald sweep ACTION`."""
    parser = Arguments(f"gald sweep {action}", description=ACTIONS[action][1].split(":")[0])
    parser.add_argument("sweep", type=Path, help="folder of a sweep, as gald train -m printed it")
    return parser.parse_args(sys.argv[1:]).sweep


def status() -> int:
    """Print the cells of a sweep; returns 1 if one has failed."""
    parser = Arguments("gald sweep status", description=ACTIONS["status"][1].split(":")[0])
    parser.add_argument("sweep", type=Path, help="folder of a sweep, as gald train -m printed it")
    parser.add_argument("--watch", action="store_true", help="show it again every five seconds")
    flags = parser.parse_args(sys.argv[1:])
    console = Console(markup=False, emoji=False)
    while True:
        states = _read_states(flags.sweep)
        if flags.watch and console.is_terminal:
            console.clear()
        _print_states(console, flags.sweep, states)
        busy = any(state.state in ("pending", "running") for state in states.values())
        if not (flags.watch and busy):
            return 1 if any(state.state == "failed" for state in states.values()) else 0
        time.sleep(WATCH)


def _read_states(folder: Path) -> dict["Cell", "CellState"]:
    from gald.sweep.cells import Sweep
    from gald.sweep.state import read_state

    sweep = Sweep.load(folder)
    return {cell: read_state(sweep.place(cell)) for cell in sweep.cells}


def _print_states(console: Console, folder: Path, states: dict["Cell", "CellState"]) -> None:
    from gald.sweep.launch.live_table import COLOURS, duration
    from gald.sweep.state import STATES

    rows = [("cell", "folder", "state", "val/miou", "time", "starts", "remark")]
    for cell, state in states.items():
        score = "" if state.score is None or state.score != state.score else f"{state.score:.4f}"
        seconds = duration(state.seconds) if state.seconds else ""
        starts, remark = str(state.attempts), _remark(state)
        rows.append((str(cell.number), cell.folder, state.state, score, seconds, starts, remark))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    if console.is_terminal:
        for row, line in zip(rows, lines, strict=True):
            console.print(line, style=COLOURS.get(row[2], "bold"), soft_wrap=True, highlight=False)
    else:  # a table of ten thousand rows takes rich four seconds
        print("\n".join(lines))
    counted = Counter(state.state for state in states.values())
    print(", ".join(f"{counted[name]} {name}" for name in STATES if counted[name]))
    if counted["pending"]:
        print(f"to run the pending cells: {shlex.join(['gald', 'sweep', 'run', str(folder)])}")


def retry() -> int:
    """Make the failed cells of a sweep pending again, and print the command that runs them."""
    from gald.sweep.cells import Sweep
    from gald.sweep.claim import claimed
    from gald.sweep.state import read_record, write_record

    sweep = Sweep.load(one_folder("retry"))
    count = 0
    for cell in sweep.cells:
        folder = sweep.place(cell)
        if not folder.is_dir() or read_record(folder).state != "failed":
            continue
        with claimed(folder) as free:
            record = read_record(folder)
            if free and record.state == "failed":
                record.state, record.reason = "pending", f"failed before: {record.reason}"
                write_record(folder, record)
                count += 1
    if not count:
        print("no cell has failed")
    else:
        print(f"{count} cells are pending again; to run them:")
        print(shlex.join(["gald", "sweep", "run", str(sweep.path)]))
    return 0


def run_cells() -> int:
    """Run one cell of a sweep, or all that are not done; returns the exit code.

    The code is 0 if the cells are done, 1 if one has failed, and 75 if a signal stopped them or
    another process runs them.

    Raises:
        ValueError: the sweep has no such cell.
    """
    parser = Arguments("gald sweep run", description=ACTIONS["run"][1].split(":")[0])
    parser.add_argument("sweep", type=Path, help="folder of a sweep")
    parser.add_argument("--cell", type=int, metavar="N", help="only this cell, counted from 0")
    parser.add_argument("--jobs", type=int, help="most cells at once (default: as many as fit)")
    parser.add_argument("--jobs-per-gpu", type=int, default=1, help="cells that share a GPU")
    parser.add_argument(
        "--config-dir", type=Path, action="append", default=[], help="folder with configs of yours"
    )
    parser.add_trust()
    flags = parser.parse_args(sys.argv[1:])

    from gald.run.preemption import PREEMPTED
    from gald.run.slots import check_trust
    from gald.sweep.cells import Sweep, refuse_code
    from gald.sweep.compose import Source
    from gald.sweep.launch.devices import Devices
    from gald.sweep.launch.door import run_cell
    from gald.sweep.launch.launcher import run_and_report
    from gald.sweep.launch.report import report
    from gald.sweep.launch.runner import RetryPolicy

    for name in ("jobs", "jobs_per_gpu"):
        if (number := getattr(flags, name)) is not None and number < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {number}; choose 1 or more")
    sweep = Sweep.load(flags.sweep)
    refuse_code(sweep, check_trust(flags.trust))
    searchpath = tuple(f"file://{folder.absolute()}" for folder in flags.config_dir)
    source, devices = Source(searchpath=searchpath), Devices(flags.jobs, flags.jobs_per_gpu)
    if flags.cell is None:
        run_and_report(sweep, sweep.cells, source, devices, RetryPolicy())
        return 1 if report(sweep) else 0
    if not 0 <= flags.cell < len(sweep.cells):
        raise ValueError(
            f"{flags.sweep} has no cell {flags.cell}; choose one from 0 to {len(sweep.cells) - 1}"
        )
    cell = sweep.cells[flags.cell]
    record = run_cell(sweep, cell, source, devices)
    score = "" if record.score is None else f", val/miou {record.score:.4f}"
    reason = f" ({record.reason})" if record.reason else ""
    owner = getattr(record, "owner", None)
    where = f", {owner} runs it" if owner else ""
    print(f"cell {cell.number}, {cell.folder}: {record.state}{score}{reason}{where}", flush=True)
    return {"done": 0, "failed": 1}.get(record.state, PREEMPTED)


def _remark(state: "CellState") -> str:
    words = []
    if state.owner:
        silent = state.silent or 0.0
        sign = f"no sign of life for {_minutes(silent)}" if silent > 120 else "alive"
        words.append(f"{state.owner}, {sign}")
    if state.reason:
        words.append(state.reason)
    if state.micro_batch_size is not None and "micro-batch size" not in (state.reason or ""):
        words.append(f"micro-batch size {state.micro_batch_size}")
    return "; ".join(words)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
