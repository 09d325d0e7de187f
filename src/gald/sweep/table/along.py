"""Report sections of a sweep: where in the image arms differ, along the curves of the metrics."""

import numpy as np

from gald.comparison.report import Section
from gald.metrics.base import CountMetric, Curve
from gald.sweep.table.arms import Arm, SweepRuns
from gald.sweep.table.figures import along_chart

DRAWN = 8  # arms in one chart; more cannot be told apart


def along(sweep: SweepRuns, baseline: Arm, drawing: bool = True) -> list[Section]:
    """Compare the arms along every curve, as the error by distance to a boundary.

    Args:
        sweep: the runs of the sweep.
        baseline: the arm that the others are compared with.
        drawing: whether to draw the curves.
    """
    metrics = next(iter(baseline.runs.values())).metrics
    parts = (
        _section(sweep, baseline, metric, curve, drawing)
        for metric in metrics
        for curve in metric.curves
    )
    return [part for part in parts if part is not None]


def _section(
    sweep: SweepRuns, baseline: Arm, metric: CountMetric, curve: Curve, drawing: bool
) -> Section | None:
    prefix = f"{sweep.split}/{curve.prefix}"
    known = next(iter(baseline.runs.values())).results
    every = [key.removeprefix(prefix) for key in known if key.startswith(prefix)]
    places = [p for p in every if "/" not in p and p in (curve.shown or every)]
    if len(places) < 2 or len(sweep.arms) < 2:
        return None
    gains = {
        arm.label: _gains(arm, baseline, [prefix + place for place in places], metric.factor)
        for arm in sweep.arms
        if arm is not baseline
    }
    labels = [metric.place_label(place) for place in places]
    rows = [[arm, *map(_shown, gain)] for arm, gain in gains.items()]
    better = "more" if metric.higher_is_better else "less"
    words = (
        f"Difference from {baseline.label} in points, by {curve.along}; {better} is better. Mean "
        "over the seeds that both arms have, without a test."
    )
    title = f"Where: {curve.title}"
    chart = None
    if drawing:
        most = sorted(gains, key=lambda arm: -float(np.nan_to_num(np.abs(gains[arm])).max()))
        shown = {arm: gains[arm] for arm in gains if arm in most[:DRAWN]}
        if len(shown) < len(gains):
            words += f" The figure has the {DRAWN} arms that differ most."
        name = curve.prefix.strip("/").replace("/", "_")
        chart = (f"along_{name}.png", along_chart(shown, labels, curve, baseline.label))
    return Section(title, words, ("arm", *labels), rows, chart)


def _gains(arm: Arm, baseline: Arm, keys: list[str], factor: float) -> np.ndarray:
    """Return the mean paired difference at each place, nan where no seed has both (places,)."""
    both = [seed for seed in arm.runs if seed in baseline.runs]
    pairs = np.array(
        [
            [
                [np.nan if (score := run.results.get(key)) is None else score for key in keys]
                for run in (arm.runs[seed], baseline.runs[seed])
            ]
            for seed in both
        ],
        float,
    ).reshape(len(both), 2, len(keys))
    found = factor * (pairs[:, 0] - pairs[:, 1])
    count = (~np.isnan(found)).sum(0)
    return np.where(count > 0, np.nansum(found, 0) / np.maximum(count, 1), np.nan)


def _shown(value: float) -> str:
    return "" if np.isnan(value) else f"{value:+.2f}"
