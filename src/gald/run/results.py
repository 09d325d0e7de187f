"""What a run leaves behind for people and for tables: results.json and a table on the screen."""

import importlib.metadata
import json
import math
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from gald.run.atomic import whole_file

Results = dict[str, Any]
SPLITS = ("val", "test")

_MEANS = {
    "pixel accuracy": "accuracy",
    "boundary F, 3 px": "boundary_f/3",
    "boundary IoU, 3 px": "boundary_iou/3",
    "wrong within 3 px of a boundary": "trimap/3",
    "thin classes, mIoU": "thin/miou",
    "found of the smallest objects": "size/recall/to_0.01%",
    "calibration error": "ece",
}


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
    with whole_file(path) as partial:
        partial.write_text(json.dumps(plain, indent=2) + "\n")


def score_table(results: Results, class_names: Sequence[str]) -> Table:
    """IoU by class, the means, and where in the image errors lie, of every split, in percent."""
    splits = [s for s in SPLITS if f"{s}/miou" in results]
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
    table.add_row("classes present", *(str(results[f"{s}/classes_present"]) for s in splits))
    for label, key in _MEANS.items():
        if all(f"{split}/{key}" in results for split in splits):
            table.add_row(*row(label, key))
    return table
