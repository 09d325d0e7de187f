"""Which numbers of a run stand beside its mIoU in a table."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gald.sweep.table.arms import Arm

# Of each family the first key that a run has; otherwise the first that matches.
SCORES = (
    ("boundary F", ("boundary_f/3",), r"boundary_f/[\d.]+"),
    ("boundary IoU", ("boundary_iou/0.02", "boundary_iou/3"), r"boundary_iou/[\d.]+"),
    ("small objects", ("size/recall/to_0.1%",), r"size/recall/to_[\d.]+%"),
    ("thin classes", ("thin/miou",), r"thin/miou"),
)
COSTS = (
    ("params (M)", "price/total/params", 1e-6),
    ("GMACs", "price/total/gmacs", 1.0),
    ("latency (ms)", "price/total/ms", 1.0),
    ("memory (MiB)", "price/total/mib", 1.0),
)


class Column(NamedTuple):
    """A number of every run.

    Attributes:
        title: heading.
        key: flat key of results.json.
        factor: what the stored number is multiplied by to be shown.
        score: whether it is one, in percent, and not a cost.
    """

    title: str
    key: str
    factor: float
    score: bool


def columns(arms: Sequence[Arm], split: str) -> list[Column]:
    """The columns that at least one run can fill, scores first."""
    runs = [run.results for arm in arms for run in arm.runs.values()]
    known = {key for run in runs for key, value in run.items() if value is not None}
    ordered = [key for key in runs[0] if key in known]
    found = [Column("mIoU", f"{split}/miou", 100, True)]
    for title, wanted, pattern in SCORES:
        keys = [f"{split}/{key}" for key in wanted if f"{split}/{key}" in known]
        keys += [key for key in ordered if re.fullmatch(f"{split}/{pattern}", key)]
        if keys:
            detail = keys[0].removeprefix(f"{split}/").rpartition("/")[2]
            name = title if detail == "miou" else f"{title} ({_words(detail)})"
            found.append(Column(name, keys[0], 100, True))
    found += [Column(title, key, factor, False) for title, key, factor in COSTS if key in known]
    return found


def values(arm: Arm, column: Column) -> np.ndarray:
    """The column's number of each run of an arm, nan where it has none (runs,)."""
    raw: list[Any] = [run.results.get(column.key) for run in arm.runs.values()]
    return column.factor * np.array([np.nan if value is None else value for value in raw], float)


def mean_and_deviation(numbers: np.ndarray) -> tuple[float, float, int]:
    """Mean, standard deviation over seeds (nan for fewer than 2) and how many there are."""
    known = numbers[~np.isnan(numbers)]
    mean = float(known.mean()) if len(known) else np.nan
    deviation = float(known.std(ddof=1)) if len(known) > 1 else np.nan
    return mean, deviation, len(known)


def _words(detail: str) -> str:
    if detail.startswith("to_"):
        return f"bin up to {detail.removeprefix('to_')}"
    return f"{detail} px" if float(detail) >= 1 else f"{100 * float(detail):g}% wide"
