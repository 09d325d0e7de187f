"""Curves of a training, from the rows of its metrics.csv."""

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gald.run.limits import refuse_above

MOST = 2000  # points of a drawn curve; of more, evenly spaced ones are kept


class Curve(NamedTuple):
    """Logged numbers by step, both of the same length."""

    steps: list[int]
    values: list[float]


def read_curves(path: Path) -> dict[str, Curve]:
    """Read the finite numbers of every column of a metrics.csv.

    A cell that is no number, and a last line that is cut, are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no column of steps, or no row.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path.name}, which logger=csv writes")
    words = "has {0} bytes, and at most {1} MB are read"
    refuse_above(path.stat().st_size, str(path), words, "GALD_MAX_FILE_MB", 10**6)
    curves: dict[str, Curve] = {}
    # A number in a last line without its end may be cut.
    text = path.read_bytes().rpartition(b"\n")[0].decode("utf-8", "replace")
    for step, row in _rows(text, path.name):
        for key, value in row.items():
            curve = curves.setdefault(key, Curve([], []))
            curve.steps.append(step)
            curve.values.append(value)
    if not curves:
        raise ValueError(f"{path.name} has no number to draw")
    return {key: _thinned(curve) for key, curve in curves.items()}


def _rows(text: str, name: str) -> Iterator[tuple[int, dict[str, float]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        if "step" not in (reader.fieldnames or ()):
            raise ValueError(f"{name} has no column step")
        for row in reader:
            step = _number(row.pop("step"))
            numbers = {key: _number(value) for key, value in row.items() if key}
            if step is not None:
                yield int(step), {k: v for k, v in numbers.items() if v is not None}
    except csv.Error as error:
        raise ValueError(f"{name} is damaged ({error})") from error


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _thinned(curve: Curve) -> Curve:
    every = -(-len(curve.steps) // MOST)
    # counted from the end, so that the last point stays
    return Curve(curve.steps[::-every][::-1], curve.values[::-every][::-1])
