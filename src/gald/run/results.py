"""Reading and writing of results.json."""

import json
import math
from pathlib import Path
from typing import Any

from gald.options.ranges import Finite, Whole
from gald.run.atomic import atomic_file
from gald.run.old_names import renew_results
from gald.run.shape import check_shape
from gald.run.text_file import read_json

Results = dict[str, Any]
SPLITS = ("val", "test")
MISSING = "missing_split"  # key of a run that has not been evaluated on this split yet


def is_finished(folder: Path) -> bool:
    """Return whether a run folder has the results of all its splits."""
    try:
        return MISSING not in read_results(folder / "results.json")
    except (FileNotFoundError, ValueError):
        return False


def as_written(results: Results) -> Results:
    """Convert results to valid JSON data: an undefined number (nan) becomes null."""
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in results.items()
    }


def write_results(path: Path, results: Results) -> None:
    """Write flat keys as JSON, atomically."""
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(as_written(results), indent=2) + "\n", encoding="utf-8")


def read_results(path: Path) -> Results:
    """Read a results.json; keys of earlier versions are renamed to the current ones.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; give the results.json of a run")
    results = read_json(path)
    if not isinstance(results, dict):
        raise ValueError(
            f"{path} contains a {type(results).__name__} instead of results; copy it again"
        )
    check_scores(path, results)
    return renew_results(results)


def check_scores(path: Path, results: Results) -> None:
    """Refuse results with other values than numbers as scores, or a receipt without keys.

    Raises:
        ValueError: the message names the first such key.
    """
    again = "copy it again, or repeat the evaluation"
    for key, value in results.items():
        if key.endswith("/receipt"):
            check_shape(path, value, {}, again, key)
        elif key.split("/")[0] in SPLITS:
            check_shape(path, results, {key: Finite | None}, again)
        elif key in ("seed", "params", "steps", "epochs"):
            check_shape(path, results, {key: Whole}, again)
