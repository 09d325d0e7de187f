"""Figures of a sweep, readable without colour."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gald.comparison.bootstrap import Difference
from gald.metrics.base import Curve
from gald.painting import new_figure, short_name, to_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Point(NamedTuple):
    """Arm in a plot of score against cost: cost, mIoU in percent, standard deviation or nan."""

    label: str
    cost: float
    score: float
    deviation: float


def pareto_chart(panels: Mapping[str, Sequence[Point]]) -> bytes:
    """Plot mIoU against each cost; filled markers are arms that no other arm beats in both.

    Args:
        panels: name of the cost -> arms; bars are one standard deviation over seeds.

    Returns:
        A png.
    """
    figure = new_figure(6 * len(panels), 4.5)
    for axis, (cost, points) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        front = [p for p in points if not any(_beats(other, p) for other in points)]
        front.sort(key=lambda p: p.cost)
        middle = sum(p.cost for p in points) / max(1, len(points))
        axis.step([p.cost for p in front], [p.score for p in front], "k--", where="post", lw=0.8)
        for point in points:
            bar = None if np.isnan(point.deviation) else [point.deviation]
            fill = "black" if point in front else "white"
            axis.errorbar(
                [point.cost], [point.score], bar, fmt="o", color="black", mfc=fill, capsize=3, lw=1
            )
            axis.annotate(
                short_name(point.label),
                (point.cost, point.score),
                (-5 if point.cost > middle else 5, 5),  # towards the middle, inside the axes
                textcoords="offset points",
                ha="right" if point.cost > middle else "left",
                size=7,
            )
        axis.margins(x=0.2, y=0.2)
        axis.set_xlabel(cost)
        axis.set_ylabel("mIoU (%)")
        axis.grid(color="0.85")
    _move_apart(figure)
    return to_png(figure)


def along_chart(
    lines: Mapping[str, np.ndarray], places: Sequence[str], curve: Curve, baseline: str
) -> bytes:
    """Draw the difference of each arm from the baseline along a curve of a metric.

    Args:
        lines: arm -> its difference at each place, in points; nan where it is unknown.
        places: labels of the places.
        curve: what is measured, along which quantity.
        baseline: the arm that is 0.

    Returns:
        A png.
    """
    figure = new_figure(8, 4.5)
    axis = figure.subplots()
    steps = range(len(places))
    for (arm, values), marker in zip(lines.items(), cycle("os^vDPX*"), strict=False):
        axis.plot(steps, values, marker=marker, ms=5, lw=1.2, label=short_name(arm))
    axis.axhline(0, color="black", lw=0.8)
    axis.set_xticks(steps, list(places), rotation=0 if len(places) < 7 else 30, size=8)
    axis.set_xlabel(curve.along)
    axis.set_ylabel(f"difference from {short_name(baseline)} (points)")
    axis.set_title(curve.title)
    axis.grid(color="0.85")
    axis.legend(fontsize=7)
    return to_png(figure)


def _move_apart(figure: "Figure") -> None:
    """Move labels up until they overlap no label below them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Annotation

    figure.draw_without_rendering()  # sets the axis limits, which label positions depend on
    # Without a renderer, get_window_extent would redraw the figure for each label.
    renderer = FigureCanvasAgg(figure).get_renderer()
    point = figure.dpi / 72  # in pixels
    for axis in figure.axes:
        placed = np.empty((0, 4))
        labels = [text for text in axis.texts if isinstance(text, Annotation)]
        for label in sorted(labels, key=lambda label: label.get_window_extent(renderer).y0):
            left, low, right, high = label.get_window_extent(renderer).extents
            beside = placed[(placed[:, 0] <= right) & (placed[:, 2] >= left)]
            moved = 0  # points
            while ((beside[:, 1] <= high) & (beside[:, 3] >= low)).any():
                moved, low, high = moved + 1, low + point, high + point
            label.xyann = (label.xyann[0], label.xyann[1] + moved)
            placed = np.vstack([placed, (left, low, right, high)])


def class_chart(
    arms: Sequence[str],
    names: Sequence[str],
    differences: Sequence[Difference],
    stars: Sequence[np.ndarray],
    against: str,
) -> bytes:
    """Draw the IoU difference of each class and arm as numbers on blue (better) or red (worse).

    A star marks what is more than noise. Darker cells have larger differences.

    Args:
        arms: labels of the columns.
        names: names of the classes.
        differences: IoU differences of each arm, arrays (K,), as fractions.
        stars: which of them get a star, arrays (K,).
        against: label of the baseline.

    Returns:
        A png.
    """
    table = 100 * np.stack([row.difference for row in differences], 1)  # K, arms
    clear = np.stack(stars, 1)
    arms, names = ([short_name(label) for label in labels] for labels in (arms, names))
    longest_arm, longest_name = (max(map(len, labels)) for labels in (arms, names))
    width = max(2.2, 0.07 * longest_name) + max(1.1 * len(arms), 0.07 * longest_arm)
    figure = new_figure(width, max(1.8, 0.05 * longest_arm) + 0.26 * len(names))
    axis = figure.subplots()
    reach = max(1e-9, float(np.nanmax(np.abs(table), initial=0)))
    axis.imshow(np.nan_to_num(table), cmap="RdBu", vmin=-2 * reach, vmax=2 * reach, aspect="auto")
    for row, column in np.ndindex(*table.shape):
        value = table[row, column]
        text = "absent" if np.isnan(value) else f"{value:+.1f}" + "*" * bool(clear[row, column])
        weight = "bold" if clear[row, column] else "normal"
        axis.text(column, row, text, ha="center", va="center", size=8, weight=weight)
    axis.set_xticks(range(len(arms)), arms, rotation=30, ha="right", size=8)
    axis.set_yticks(range(len(names)), names, size=8)
    axis.set_title(f"IoU against {short_name(against)} (points)", size=10)
    return to_png(figure)


def _beats(one: Point, other: Point) -> bool:
    better = one.cost <= other.cost and one.score >= other.score
    return better and (one.cost < other.cost or one.score > other.score)
