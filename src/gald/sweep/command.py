"""`gald sweep ACTION FOLDER`: plan and check a sweep, and repeat its failed cells."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from gald.command_line.app import Trust, new_app
from gald.sweep.plan.command import main as plan
from gald.sweep.table.audit_command import main as audit

if TYPE_CHECKING:
    from gald.sweep.cells import Cell
    from gald.sweep.state import CellState

WATCH = 5.0  # seconds between two looks at a sweep
app = new_app("sweep", "Plan, run and inspect an ablation; gald train -m starts one.")
app.command(plan, name="plan")
app.command(audit, name="audit")
Folder = Annotated[Path, Parameter(help="folder of a sweep, as gald train -m printed it")]


@app.command
def status(sweep: Folder, /, *, watch: bool = False) -> int:
    """Print the state of each cell of a sweep; the exit code is 1 if one has failed.

    Args:
        sweep: folder of a sweep, as gald train -m printed it
        watch: show it again every five seconds
    """
    console = Console(markup=False, emoji=False)
    while True:
        states = _read_states(sweep)
        if watch and console.is_terminal:
            console.clear()
        _print_states(console, sweep, states)
        busy = any(state.state in ("pending", "running") for state in states.values())
        if not (watch and busy):
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
        from gald.sweep.cells import Sweep

        print(f"to run the pending cells: {Sweep.load(folder).go_on}")


@app.command
def retry(folder: Folder, /) -> int:
    """Make the failed cells of a sweep pending again, and print the command that runs them."""
    from gald.sweep.cells import Sweep
    from gald.sweep.claim import claimed
    from gald.sweep.state import read_record, write_record

    sweep = Sweep.load(folder)
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
        print(sweep.go_on)
    return 0


@app.command(name="run")
def run_cells(
    folder: Folder,
    /,
    *,
    cell: int | None = None,
    jobs: int | None = None,
    jobs_per_gpu: int = 1,
    warm: bool = False,
    config_dir: Sequence[Path] = (),
    trust: Trust = (),
) -> int:
    """Run one cell of a sweep, or all that are not done.

    The exit code is 0 if the cells are done, 1 if one has failed, and 75 if a signal stopped them
    or another process runs them.

    Args:
        folder: folder of a sweep, as gald train -m printed it
        cell: only this cell, counted from 0
        jobs: most cells at once (default: as many as fit)
        jobs_per_gpu: cells that share a GPU
        warm: import once, and start each cell as a copy of that process; Linux only
        config_dir: folder with configs of yours; repeat for more
        trust: package with classes of your own that the file may name; repeat for more

    Raises:
        ValueError: the sweep has no such cell.
    """
    from gald.run.preemption import PREEMPTED
    from gald.run.slots import check_trust
    from gald.sweep.cells import Sweep, refuse_code
    from gald.sweep.compose import Source
    from gald.sweep.launch.devices import Devices
    from gald.sweep.launch.door import run_cell
    from gald.sweep.launch.launcher import run_and_report
    from gald.sweep.launch.report import report
    from gald.sweep.launch.runner import RetryPolicy
    from gald.sweep.launch.warm import starting

    if warm and cell is not None:
        raise ValueError(
            f"--warm saves imports from the second cell on, but --cell {cell} is one; "
            "leave --warm out"
        )
    for name, number in (("--jobs", jobs), ("--jobs-per-gpu", jobs_per_gpu)):
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}; choose 1 or more")
    sweep = Sweep.load(folder)
    refuse_code(sweep, check_trust(trust))
    if sweep.of_probe:
        raise ValueError(
            f"{folder} has cells of gald probe; repeat its command, which runs those that are not "
            f"done: {sweep.go_on}"
        )
    searchpath = tuple(f"file://{place.absolute()}" for place in config_dir)
    source, devices = Source(searchpath=searchpath), Devices(jobs, jobs_per_gpu)
    if cell is None:
        with starting(warm) as start:
            run_and_report(sweep, sweep.cells, source, devices, RetryPolicy(), start=start)
        return 1 if report(sweep) else 0
    if not 0 <= cell < len(sweep.cells):
        raise ValueError(
            f"{folder} has no cell {cell}; choose one from 0 to {len(sweep.cells) - 1}"
        )
    chosen = sweep.cells[cell]
    record = run_cell(sweep, chosen, source, devices)
    score = "" if record.score is None else f", val/miou {record.score:.4f}"
    reason = f" ({record.reason})" if record.reason else ""
    owner = getattr(record, "owner", None)
    where = f", {owner} runs it" if owner else ""
    print(f"cell {cell}, {chosen.folder}: {record.state}{score}{reason}{where}", flush=True)
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
