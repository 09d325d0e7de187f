"""Benchmark of the command line: CPU seconds and memory until a question is answered.

    make bench-start
    make bench-start ARGS="--markdown FILE"

Each command runs five times as a process of its own, after one run that fills the file caches; the
table has the median of its CPU seconds, user and system, and of its largest resident memory.
"""

import argparse
import os
import platform
import shlex
import statistics
import sys
import tempfile
from pathlib import Path

from gald.run.provenance import commit

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


def measure(words: list[str], folder: str) -> tuple[float, float]:
    """Run a command; return its CPU seconds and its largest resident memory in MB."""
    process = os.fork()
    if process == 0:
        os.chdir(folder)
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        os.execv(GALD, [str(GALD), *words])
    _, _, usage = os.wait4(process, 0)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


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
            words = shlex.split(command)
            runs = [measure(words, folder) for _ in range(ROUNDS + 1)][1:]
            seconds, memory = (statistics.median(column) for column in zip(*runs, strict=True))
            lines.append(f"| `gald {command}` | {seconds:.2f} | {memory:.0f} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if flags.markdown:
        flags.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
