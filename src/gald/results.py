"""What a run leaves behind for people and for tables: results.json and a table on the screen."""

import importlib.metadata
import json
import math
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

Results = dict[str, Any]


def versions() -> Results:
    """Versions of what a number can depend on, under flat keys."""
    packages = ("gald", "torch", "pytorch-lightning", "timm", "albumentations")
    return {f"version/{name}": importlib.metadata.version(name) for name in packages}


def commit() -> str | None:
    """The git commit of the code, marked `+` where files were changed; None outside a checkout."""

    def git(*arguments: str) -> str:
        where = Path(__file__).parent
        done = subprocess.run(
            ["git", *arguments], cwd=where, capture_output=True, text=True, check=True, timeout=10
        )
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def write_results(path: Path, results: Results) -> None:
    """Write flat keys as JSON, in one move; a class that never occurred (nan) becomes null."""
    plain = {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in results.items()
    }
    partial = path.with_suffix(".json.part")
    partial.write_text(json.dumps(plain, indent=2) + "\n")
    os.replace(partial, path)


def score_table(results: Results, class_names: Sequence[str]) -> Table:
    """Per-class IoU and the means of every split that was judged, in percent."""
    splits = [s for s in ("val", "test") if f"{s}/miou" in results]
    table = Table("class", title="IoU in %")
    for split in splits:
        table.add_column(split, justify="right")

    def row(label: str, key: str) -> list[str]:
        values = [results[f"{split}/{key}"] for split in splits]
        return [label, *("absent" if math.isnan(v) else f"{100 * v:.1f}" for v in values)]

    for name in class_names:
        table.add_row(*row(name, f"iou/{name}"))
    table.add_section()
    table.add_row(*row("mIoU", "miou"), style="bold")
    table.add_row(*row("pixel accuracy", "accuracy"))
    return table
