"""Cost of a sweep's bookkeeping: declaring, scheduling, showing, auditing and comparing cells.

    make bench-sweep
    make bench-sweep ARGS="--cells 1000 --markdown FILE"
    make bench-sweep ARGS="--only tables"

The cells are processes that write a result and end at once, so only the launcher's own CPU time
counts. Tables and audits are of finished sweeps with simulated predictions (finished_sweep.py).
Each measurement runs in a process of its own, so that memory and time are its own too.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# A cell in place of gald.sweep.launch.cell: it writes what the launcher looks for.
PRETENDED = """
import sys
from pathlib import Path
Path(sys.argv[1], "results.json").write_text('{"val/miou": 0.5}')
"""


def words(count: int) -> list[list[str]]:
    """Overrides of `count` cells: GA x LD x seeds."""
    gas = ("none", "psp", "cgnl", "nonlocal", "aspp")
    lds = ("none", "mask", "gate", "guided")
    seeds = range(-(-count // (len(gas) * len(lds))))
    grid = itertools.product(gas, lds, seeds)
    cells = [[f"model/ga={ga}", f"model/ld={ld}", f"seed={seed}"] for ga, ld, seed in grid]
    return cells[:count]


def declare_cells(folder: Path, count: int) -> None:
    """Declare the cells."""
    from gald.sweep.cells import declare

    declare(folder, "bench", ["gald", "train", "-m"], words(count))


def schedule(folder: Path, count: int) -> None:
    """Run the first `count` cells that are not done."""
    from gald.sweep.cells import Sweep
    from gald.sweep.compose import Source
    from gald.sweep.launch import cell_process
    from gald.sweep.launch.devices import Devices
    from gald.sweep.launch.runner import RetryPolicy, run_cells

    cell_process.ENTRY = ["-S", "-c", PRETENDED]
    sweep = Sweep.load(folder)
    run_cells(sweep, sweep.cells[:count], Source(), Devices(jobs=8, gpus=[]), RetryPolicy())


def pretend_results(folder: Path) -> None:
    """Write the state of a done cell into every folder."""
    from gald.sweep.cells import Sweep
    from gald.sweep.state import Record, write_record

    sweep = Sweep.load(folder)
    for cell in sweep.cells:
        sweep.place(cell).mkdir(exist_ok=True)
        (sweep.place(cell) / "results.json").write_text('{"val/miou": 0.5}')
        write_record(sweep.place(cell), Record("done", None, 1, 1.0, None, 0.5))


def show_status(folder: Path) -> None:
    """Print the table of states."""
    from gald.sweep.command import status

    sys.argv = ["gald sweep status", str(folder)]
    status()


def measured(function: Callable[..., object], *arguments: Any) -> tuple[float, float, float]:
    """Run a function in a process of its own; return wall seconds, CPU seconds and MB."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(send, function, arguments))
    process.start()
    send.close()
    result = receive.recv()
    process.join()
    return result


def _measure(send: Any, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    sys.stdout = Path("/dev/null").open("w")  # noqa: SIM115
    wall, cpu = time.perf_counter(), time.process_time()
    function(*arguments)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    send.send((wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def command(*words: str) -> tuple[float, float, float]:
    """Run a `gald` command; return wall seconds, CPU seconds and MB of the whole process."""
    start = time.perf_counter()
    code = "from gald.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"gald {' '.join(words)} ended with code {process.returncode}")
    wall = time.perf_counter() - start
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def write_finished(folder: Path, shape: tuple[int, ...]) -> None:
    """Write a sweep in which every cell is done."""
    from finished_sweep import Shape, write_sweep

    write_sweep(folder, Shape(*shape))


# Number of GA modules, LD modules, seeds, images and classes.
FINISHED = ((3, 3, 3, 101, 11), (10, 10, 3, 233, 11), (2, 2, 3, 2000, 150))


def tables(scratch: Path) -> Iterator[tuple[str, int, tuple[float, float, float]]]:
    """Measure tables and an audit of finished sweeps with all metrics."""
    for shape in FINISHED:
        folder, (*arms, images, classes) = scratch / f"finished_{shape[3]}", shape
        measured(write_finished, folder, shape)
        runs = math.prod(arms)
        words = ("table", str(folder), "--split", "test")
        yield (
            f"table, {images} images x {classes} classes",
            runs,
            command(*words, "--format", "csv"),
        )
        if runs == 27:
            yield "the same with figures", runs, command(*words, "--to", str(scratch / "report"))
        if runs == 300:
            yield "audit", runs, command("sweep", "audit", str(folder))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--scheduled", type=int, nargs=2, default=(100, 400), metavar="N")
    parser.add_argument("--only", choices=("cells", "tables"), help="leave out the others")
    parser.add_argument("--markdown", type=Path, help="also write the table to this file")
    flags = parser.parse_args()
    rows = [["step", "cells", "seconds", "CPU seconds", "CPU ms per cell", "MB"]]

    def add(name: str, count: int, result: tuple[float, float, float]) -> None:
        wall, cpu, memory = result
        numbers = (f"{wall:.2f}", f"{cpu:.2f}", f"{1e3 * cpu / count:.2f}", f"{memory:.0f}")
        rows.append([name, str(count), *numbers])
        print("  ".join(rows[-1]), flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        if flags.only != "tables":
            folder = Path(scratch) / "sweep"
            add("declare", flags.cells, measured(declare_cells, folder, flags.cells))
            add("declare again", flags.cells, measured(declare_cells, folder, flags.cells))
            few, many = flags.scheduled
            add("schedule, few", few, measured(schedule, folder, few))
            add("schedule, more", many - few, measured(schedule, folder, many))
            pretend_results(folder)
            add("status, all done", flags.cells, measured(show_status, folder))
            assert json.loads((folder / "cells.jsonl").read_text().splitlines()[-1])["number"]
        if flags.only != "cells":
            for row in tables(Path(scratch)):
                add(*row)
    import data  # benchmarks/data.py, for machine(); late, because of its memory

    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|---|" + "---:|" * (len(rows[0]) - 1))
    text = "\n".join([data.machine(), "", *lines, ""])
    if flags.markdown:
        flags.markdown.write_text(text)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
