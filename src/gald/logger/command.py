"""`gald wandb ACTION ...`: send offline runs, build a workspace that shows a sweep."""

import os
import subprocess
import sys
from pathlib import Path

from gald.cli import Arguments
from gald.run.atomic import atomic_file

SYNCED = ".synced"  # wandb leaves RUN.wandb.synced beside what it has sent


def main() -> int:
    """Do what the command line says; returns the exit code."""
    parser = Arguments(prog="gald wandb", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    sync = actions.add_parser("sync", help="send all offline runs below a folder")
    sync.add_argument("folder", type=Path, help="a run, a sweep, or all of runs")
    sync.add_argument("--entity", help="user or team; by default that of the key")
    sync.add_argument("--project", help="instead of the one that the runs were logged to")
    sync.add_argument("--dry-run", action="store_true", help="only list what would be sent")
    board = actions.add_parser("dashboard", help="make a workspace for a sweep")
    board.add_argument("folder", type=Path, help="a sweep, with at least one finished cell")
    board.add_argument("--entity", required=True, help="user or team")
    board.add_argument("--project", default="gald")
    board.add_argument("--to", type=Path, help="write its JSON to this file instead of sending it")
    chosen = parser.parse_args(sys.argv[1:])
    if chosen.action == "sync":
        return _sync(chosen.folder, chosen.entity, chosen.project, chosen.dry_run)
    return _dashboard(chosen.folder, chosen.entity, chosen.project, chosen.to)


def unsent(folder: Path) -> list[Path]:
    """Folders of the offline runs below a folder that are yet to be sent, by name.

    Raises:
        FileNotFoundError: there is no offline run, sent or not.
    """
    files = sorted(folder.rglob("wandb/offline-run-*/*.wandb"))
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no offline wandb run; name a run or a sweep that was trained with "
            "logger=[csv,wandb]"
        )
    return [file.parent for file in files if not file.with_name(file.name + SYNCED).exists()]


def _sync(folder: Path, entity: str | None, project: str | None, dry_run: bool) -> int:
    from gald.logger.wandb import has_key

    runs = unsent(folder)
    if dry_run or not runs:
        print(*runs, f"{len(runs)} offline runs to send", sep="\n")
        return 0
    if not has_key():
        raise ValueError(
            f"there is no wandb key to send {len(runs)} offline runs with; "
            "`wandb login` stores one, WANDB_API_KEY sets one"
        )
    options = [f"--entity={entity}"] if entity else []
    options += [f"--project={project}"] if project else []
    # Parts of one run, from before and after a resume, wandb puts in order itself.
    command = [sys.executable, "-m", "wandb", "sync", *options, *map(str, runs)]
    return subprocess.run(
        command, env=os.environ | {"WANDB_MODE": "online"}, check=False
    ).returncode


def _dashboard(folder: Path, entity: str, project: str, to: Path | None) -> int:
    from gald.logger.wandb import has_key
    from gald.logger.wandb_workspace import build_workspace, spec

    workspace = build_workspace(folder, entity, project)
    if to is None and not has_key():
        raise ValueError(
            "there is no wandb key to make the workspace with; `wandb login` stores one, or write "
            "it to a file with --to FILE"
        )
    if to is None:
        workspace.save()
        print(workspace.url)
        return 0
    if to.exists():
        raise ValueError(f"{to} exists already; choose another file with --to")
    with atomic_file(to) as partial:
        partial.write_text(spec(workspace) + "\n", encoding="utf-8")
    print(f"{to}: the same command without --to sends it, once `wandb login` has stored a key")
    return 0
