"""Columns of a table: scores and costs of each run."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gald.sweep.table.arms import Arm

COSTS = (
    ("params (M)", "cost/total/params", 1e-6),
    ("GMACs", "cost/total/gmacs", 1.0),
    ("latency (ms)", "cost/total/ms", 1.0),
    ("memory (MiB)", "cost/total/mib", 1.0),
)


class Column(NamedTuple):
    """One score or cost of every run.

    Attributes:
        title: heading.
        key: flat key of results.json.
        factor: factor from the stored number to the number that is shown.
        score: whether it is a score and not a cost.
        unit: unit of the number that is shown, if it is a score.
        higher_is_better: whether a larger number is better.
        name: name of the score in words, without its place on a curve.
    """

    title: str
    key: str
    factor: float
    score: bool
    unit: str = ""
    higher_is_better: bool = True
    name: str = ""


def columns(arms: Sequence[Arm], split: str) -> list[Column]:
    """List the columns with a number of at least one run: one score per metric, then costs."""
    runs = [run for arm in arms for run in arm.runs.values()]
    known = {key for run in runs for key, value in run.results.items() if value is not None}
    scored = {key.removeprefix(f"{split}/") for key in known if key.startswith(f"{split}/")}
    scores = []
    for metric in runs[0].metrics:
        headline = metric.headline(scored, runs[0].class_names)
        if headline is not None:
            key, title = headline
            scores.append(
                Column(
                    title if metric.higher_is_better else f"{title}, lower is better",
                    f"{split}/{key}",
                    metric.factor,
                    True,
                    metric.unit,
                    bool(metric.higher_is_better),
                    metric.label,
                )
            )
    return scores + [
        Column(title, key, factor, False) for title, key, factor in COSTS if key in known
    ]


def values(arm: Arm, column: Column) -> np.ndarray:
    """Return the column's number for each run of an arm, nan if it has none (runs,)."""
    raw: list[Any] = [run.results.get(column.key) for run in arm.runs.values()]
    return column.factor * np.array([np.nan if value is None else value for value in raw], float)


def mean_and_deviation(numbers: np.ndarray) -> tuple[float, float, int]:
    """Return mean, standard deviation over seeds (nan for fewer than 2) and number of values."""
    known = numbers[~np.isnan(numbers)]
    mean = float(known.mean()) if len(known) else np.nan
    deviation = float(known.std(ddof=1)) if len(known) > 1 else np.nan
    return mean, deviation, len(known)
