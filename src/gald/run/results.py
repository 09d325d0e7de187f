"""What a run leaves behind for people and for tables: results.json and a table on the screen."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gald.run.atomic import atomic_file
from gald.run.old_names import renew_results

if TYPE_CHECKING:
    pass

Results = dict[str, Any]
SPLITS = ("val", "test")


def as_written(results: Results) -> Results:
    """Results as JSON holds them: a number that is not defined (nan) becomes null."""
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in results.items()
    }


def write_results(path: Path, results: Results) -> None:
    """Write flat keys as JSON, in one move."""
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(as_written(results), indent=2) + "\n", encoding="utf-8")


def read_results(path: Path) -> Results:
    """Read a results.json; keys of earlier versions get today's names.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no results at {path}; name the results.json of a run")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); copy it again") from error
    if not isinstance(results, dict):
        raise ValueError(f"{path} holds a {type(results).__name__}, not results; copy it again")
    return renew_results(results)
