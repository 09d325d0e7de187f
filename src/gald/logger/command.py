"""`gald wandb ACTION ...`: send offline runs, or create a workspace for a sweep."""

import os
import subprocess
import sys
from pathlib import Path

from gald.command_line.app import new_app
from gald.run.atomic import atomic_file

SYNCED = ".synced"  # wandb writes RUN.wandb.synced next to a file that it has sent


app = new_app("wandb", "Send offline runs to wandb, or create a workspace for a sweep.")


def unsent(folder: Path) -> list[Path]:
    """Find the folders of the offline runs below a folder that were not sent yet, by name.

    Raises:
        FileNotFoundError: there is no offline run, sent or not.
    """
    files = sorted(folder.rglob("wandb/offline-run-*/*.wandb"))
    if not files:
        raise FileNotFoundError(
            f"{folder} contains no offline wandb run; give a run or a sweep that was trained with "
            "logger=[csv,wandb]"
        )
    return [file.parent for file in files if not file.with_name(file.name + SYNCED).exists()]


@app.command
def sync(
    folder: Path,
    /,
    *,
    entity: str | None = None,
    project: str | None = None,
    dry_run: bool = False,
) -> int:
    """Send all offline runs below a folder.

    Args:
        folder: a run, a sweep, or the folder of all runs
        entity: user or team (default: that of the key)
        project: project (default: the one that the runs were logged to)
        dry_run: only list the runs to send
    """
    from gald.logger.wandb import has_key

    runs = unsent(folder)
    if dry_run or not runs:
        print(*runs, f"{len(runs)} offline runs to send", sep="\n")
        return 0
    if not has_key():
        raise ValueError(
            f"there is no wandb key to send {len(runs)} offline runs with; run `wandb login`, or "
            "set WANDB_API_KEY=KEY"
        )
    options = [f"--entity={entity}"] if entity else []
    options += [f"--project={project}"] if project else []
    # wandb itself sorts the parts of a run from before and after a resume.
    command = [sys.executable, "-m", "wandb", "sync", *options, *map(str, runs)]
    return subprocess.run(
        command, env=os.environ | {"WANDB_MODE": "online"}, check=False
    ).returncode


@app.command
def dashboard(
    folder: Path, /, *, entity: str, project: str = "gald", to: Path | None = None
) -> int:
    """Create a workspace for a sweep.

    Args:
        folder: a sweep with at least one finished cell
        entity: user or team
        project: project of the runs
        to: write its JSON to this file instead of sending it
    """
    from gald.logger.wandb import has_key
    from gald.logger.wandb_workspace import build_workspace, spec

    workspace = build_workspace(folder, entity, project)
    if to is None and not has_key():
        raise ValueError(
            "there is no wandb key to create the workspace with; run `wandb login`, or write it to "
            "a file with --to FILE"
        )
    if to is None:
        workspace.save()
        print(workspace.url)
        return 0
    to = to.expanduser()
    if to.exists():
        raise ValueError(f"{to} already exists; choose another file with --to")
    with atomic_file(to) as partial:
        partial.write_text(spec(workspace) + "\n", encoding="utf-8")
    print(f"{to}: to send it, run `wandb login` and repeat the command without --to")
    return 0
