"""`gald sweep ACTION FOLDER`: plan and check a sweep, and repeat its failed cells."""

import importlib
import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gald.cli import Arguments

ACTIONS = {
    "plan": (
        "gald.sweep.plan.plan:main",
        "cells, time, memory, seeds: gald sweep plan model/ga=...",
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
    from gald.sweep.launch.jobs import score
    from gald.sweep.launch.live_table import COLOURS, duration
    from gald.sweep.manifest import Manifest

    folder = one_folder("status")
    manifest = Manifest.load(folder)
    table = Table("cell", "state", "val/miou", "time", "starts", "reason", box=None)
    for cell in manifest.cells.values():
        value = score(folder, cell)
        table.add_row(
            cell.folder,
            Text(cell.state, COLOURS[cell.state]),
            f"{value:.4f}" if value == value else "",
            duration(cell.seconds) if cell.seconds else "",
            str(cell.attempts),
            Text(_remark(cell.reason, cell.micro_batch_size)),
        )
    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 400  # in a log, no line is cut
    console.print(table)
    count = manifest.count()
    print(", ".join(f"{number} {state}" for state, number in count.items() if number))
    if count["pending"]:
        print(f"to run the pending cells: {shlex.join(manifest.command)}")
    return 1 if count["failed"] else 0


def retry() -> int:
    """Make the failed cells of a sweep pending again, and print the command that runs them."""
    from gald.sweep.manifest import Manifest, edit

    folder = one_folder("retry")
    Manifest.load(folder)  # raises for a wrong folder before edit() writes a lock file there
    with edit(folder) as manifest:
        failed = [cell for cell in manifest.cells.values() if cell.state == "failed"]
        for cell in failed:
            cell.state, cell.reason = "pending", f"failed before: {cell.reason}"
    if not failed:
        print("no cell has failed")
    else:
        print(f"{len(failed)} cells are pending again; to run them:")
        print(shlex.join(manifest.command))
    return 0


def _remark(reason: str | None, micro_batch_size: int | None) -> str:
    if micro_batch_size is None or (reason and "micro-batch size" in reason):
        return reason or ""
    return "; ".join(filter(None, [reason, f"micro-batch size {micro_batch_size}"]))
