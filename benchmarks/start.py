"""Benchmark of starts: CPU seconds and memory until a question is answered, and of a cell.

    make bench-start
    make bench-start ARGS="--markdown FILE"

Each command runs five times as a process of its own, after one run that fills the file caches; the
table has the median of its CPU seconds, user and system, and of its largest resident memory. Then
come cells of a sweep that train one step of a tiny network: what a cell costs besides its training,
in a process of its own, and as a copy of one that has imported everything (on Linux).
"""

import argparse
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from gald.run.provenance import commit
from gald.sweep.compose import Source
from gald.sweep.launch.cell import LAUNCHER, Options
from gald.sweep.launch.cell_process import ENTRY
from gald.sweep.launch.warm import WarmStart, starting

GALD = Path(sys.executable).with_name("gald")
ROUNDS = 5
COMMANDS = (
    "--help",
    "train --help",
    "train --cfg job",
    "train --info searchpath",
    "train ga=psp",
    "train model/ga=pps",
    "eval --help",
    "profile --help",
    "predict --help",
    "predict run street.jpg --too x",
    "sweep status --help",
    "data verify --help",
    "completion --line 'gald train model/ga=p'",
)
CELL = (
    "data.size=[48,64]",
    "data.train_transform.crop_size=[48,64]",
    "data.train_count=4",
    "data.val_count=3",
    "data.test_count=3",
    "data.global_batch_size=4",
    "data.num_workers=0",
    "model.channels=16",
    "model.backbone.name=test_resnet",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
)
CELLS = {
    "a cell of one step": ("logger=csv", "report=false"),
    "a cell of one step, with wandb and report": ("logger.wandb.mode=offline",),
}


def measure(words: list[str], folder: str) -> tuple[float, float]:
    """Run a command; return its CPU seconds and its largest resident memory in MB."""
    process = os.fork()
    if process == 0:
        os.chdir(folder)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        os.environ[LAUNCHER] = str(os.getppid())
        os.execv(words[0], words)
    _, status, usage = os.wait4(process, 0)
    assert status == 0 or words[0] == str(GALD), f"{words} failed"
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def measure_copy(start: WarmStart, words: list[str], folder: Path) -> tuple[float, float]:
    """Run a cell as a copy of a process that has imported; return the same two numbers."""
    environment = {key: value for key, value in os.environ.items() if key != LAUNCHER}
    process = start(words, environment, folder / "log.txt")
    memory = 0.0
    state = Path(f"/proc/{process.pid}")
    while True:  # its times can be read until `wait` collects it
        fields = (state / "stat").read_text().rpartition(")")[2].split()
        if fields[0] == "Z":
            break
        lines = (state / "status").read_text().splitlines()
        peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
        memory = max([memory, *(kib / 1000 for kib in peaks)])
        time.sleep(0.05)
    assert process.wait() == 0, (folder / "log.txt").read_text()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), memory


def cells(folder: Path) -> list[str]:
    """Return the rows of cells."""
    rows = []
    with starting(sys.platform == "linux") as start:
        for number, (name, words) in enumerate(CELLS.items()):
            runs: dict[str, list[tuple[float, float]]] = {"cold": [], "warm": []}
            for turn in range(ROUNDS + 1):
                for kind, measured in runs.items():
                    place = folder / f"{kind}_{number}_{turn}"
                    place.mkdir()
                    options = Options([*CELL, *words, f"name={kind}"], asdict(Source()))
                    arguments = [str(place), options.as_text()]
                    if kind == "cold":
                        command = [sys.executable, *ENTRY, *arguments]
                        measured.append(measure(command, str(folder)))
                    elif isinstance(start, WarmStart):
                        measured.append(measure_copy(start, arguments, place))
            rows += [row(f"{name}, {kind}", runs[kind][1:]) for kind in runs if runs[kind]]
    return rows


def row(name: str, runs: list[tuple[float, float]]) -> str:
    """Return a row of the table, with medians."""
    seconds, memory = (statistics.median(column) for column in zip(*runs, strict=True))
    return f"| {name} | {seconds:.2f} | {memory:.0f} |"


def main() -> None:
    """Print the table, and write it as Markdown if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", type=Path, help="also write the table to this file")
    flags = parser.parse_args()
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}; "
        f"commit {commit()}; {ROUNDS} rounds.",
        "",
        "| command | CPU s | MB |",
        "| --- | ---: | ---: |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            words = [str(GALD), *shlex.split(command)]
            runs = [measure(words, folder) for _ in range(ROUNDS + 1)][1:]
            lines.append(row(f"`gald {command}`", runs))
        lines += cells(Path(folder))
    text = "\n".join(lines) + "\n"
    print(text)
    if flags.markdown:
        flags.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
