"""Figures of differences, readable without colour: filled markers are clear, hollow ones noise.

Blue markers are in favour of the second run, orange ones of the first.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gald.comparison.bootstrap import Difference
from gald.painting import BLUE, ORANGE, new_figure, short_name, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def difference_chart(
    rows: Mapping[str, Difference],
    clear: Sequence[bool],
    title: str,
    along: str = "difference (points)",
    factor: float = 100,
    higher_is_better: bool = True,
) -> bytes:
    """Draw one defined difference per row, with its interval; the largest is on top.

    Args:
        rows: label -> difference, as fractions.
        clear: which markers to fill, in the order of the rows.
        title: title of the figure.
        along: label of the difference axis.
        factor: factor from a stored difference to the drawn number.
        higher_is_better: whether a positive difference is an improvement, which is blue.

    Returns:
        The bytes of a png file.
    """
    defined = (row for row in zip(rows, rows.values(), clear, strict=True) if row[1].p == row[1].p)
    order = sorted(defined, key=lambda row: row[1].difference)
    figure = new_figure(7, 1.2 + 0.24 * len(order))
    axis = figure.subplots()
    for place, (_, row, filled) in enumerate(order):
        _draw(axis, place, row, filled, factor, False, higher_is_better)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(order)), [short_name(label) for label, _, _ in order])
    axis.set_ylim(-0.7, len(order) - 0.3)
    axis.set_xlabel(along)
    axis.set_title(title)
    axis.grid(axis="x", color="0.85")
    return to_png(figure)


def curve_chart(
    rows: Mapping[str, Difference],
    clear: Sequence[bool],
    title: str,
    along: str,
    factor: float = 100,
    unit: str = "%",
    names: Sequence[str] = ("A", "B"),
    higher_is_better: bool = True,
) -> bytes:
    """Draw both scores along an ordered quantity, and beside them the difference with intervals.

    Args:
        rows: position along the quantity -> difference, as fractions, in order.
        clear: which markers of the differences to fill.
        title: title of the figure.
        along: name of the quantity.
        factor: factor from a stored score to the drawn number.
        unit: unit of the drawn number.
        names: names of the two runs.
        higher_is_better: whether a positive difference is an improvement, which is blue.

    Returns:
        The bytes of a png file.
    """
    figure = new_figure(10, 3.6)
    scores, change = figure.subplots(1, 2)
    places, drawn = range(len(rows)), []
    for part, style, colour, name in zip("ab", "so", (ORANGE, BLUE), names, strict=True):
        values = [factor * getattr(row, part) for row in rows.values()]
        fill = "white" if part == "a" else colour
        # No line: adjacent positions can have different units, pixels and shares of the image.
        drawn += scores.plot(places, values, style, color=colour, mfc=fill, label=short_name(name))
    scores.set_ylabel(unit)
    scores.legend(handles=drawn)  # without handles, a name with _ would be hidden
    for place, row, filled in zip(places, rows.values(), clear, strict=True):
        _draw(change, place, row, filled, factor, True, higher_is_better)
    change.axhline(0, color="black", linewidth=0.8)
    change.set_ylabel(f"difference ({'points' if unit == '%' else unit})")
    for axis in (scores, change):
        axis.set_xticks(places, list(map(short_name, rows)), rotation=0 if len(rows) < 9 else 45)
        axis.set_xlabel(along)
        axis.set_xlim(-0.5, len(rows) - 0.5)
        axis.grid(axis="y", color="0.85")
    figure.suptitle(title)
    return to_png(figure)


def _draw(
    axis: "Axes",
    place: int,
    row: Difference,
    filled: bool,
    factor: float,
    upright: bool,
    higher_is_better: bool,
) -> None:
    value, low, high = (factor * float(part) for part in (row.difference, row.low, row.high))
    if value != value:  # the class occurs nowhere
        return
    # With few images the interval may not contain the difference itself.
    reach = [[max(0.0, value - low)], [max(0.0, high - value)]]
    x, y, xerr, yerr = (place, value, None, reach) if upright else (value, place, reach, None)
    colour = "black" if value == 0 else BLUE if (value > 0) == higher_is_better else ORANGE
    fill = colour if filled else "white"
    axis.errorbar([x], [y], yerr, xerr, fmt="o", color=colour, mfc=fill, capsize=3, linewidth=1.2)
