"""Charts of a report; they are legible on a phone, in grey, and to colour-blind readers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gald.painting import BLUE, ORANGE, new_figure, short_name, to_png
from gald.report.curves import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (4.6, 3.1)  # inches
DPI = 160
NUMBERED = 20  # most classes with numbers in the cells of the confusion matrix
NAMED = 60  # most classes with names at its axes
STYLES = ((BLUE, "o", "-"), (ORANGE, "s", "--"), ("0.35", "^", ":"), ("0.55", "D", "-."))
Named = Mapping[str, Curve]


def curves_chart(
    curves: Named, title: str, label: str, factor: float = 1.0, best: bool = False
) -> bytes:
    """Draw curves by step.

    Args:
        curves: name -> curve; the names are in a legend if there are several.
        title: title of the chart.
        label: label of the y axis.
        factor: factor from a logged to the drawn number.
        best: whether to mark the largest value of the first curve.

    Returns:
        The bytes of a png file.
    """
    figure, axis = _new(title)
    lines = []
    for n, (name, curve) in enumerate(curves.items()):
        colour, marker, line = STYLES[n % len(STYLES)]
        values = factor * np.asarray(curve.values)
        single = marker if len(values) < 30 else ""
        label_of = short_name(name)
        lines += axis.plot(
            curve.steps, values, line, color=colour, marker=single, ms=4, lw=1.6, label=label_of
        )
        if best and n == 0:
            top = int(values.argmax())
            axis.plot(curve.steps[top], values[top], "o", mfc="white", mec=colour, ms=9, mew=2)
            _note(axis, f"best {values[top]:.1f}, step {curve.steps[top]}")
    axis.set_xlabel("step")
    axis.set_ylabel(label)
    axis.ticklabel_format(axis="x", style="plain")
    axis.ticklabel_format(axis="y", scilimits=(-3, 4))
    if len(curves) > 1:
        axis.legend(handles=lines, fontsize=8)  # without handles, a name with _ would be hidden
    return to_png(figure)


def confusion_chart(matrix: np.ndarray, names: Sequence[str]) -> bytes:
    """Draw a confusion matrix in percent of each true class.

    Args:
        matrix: pixels (K, K), rows true, columns predicted.
        names: names of the K classes.

    Returns:
        The bytes of a png file.
    """
    total = matrix.sum(1, keepdims=True)
    shares = 100 * np.divide(matrix, total, out=np.full(matrix.shape, np.nan), where=total > 0)
    count = len(names)
    named, numbered = count <= NAMED, count <= NUMBERED
    longest = max(len(short_name(name)) for name in names) if named else 0
    cell = 0.46 if numbered else min(0.2, 9 / count)
    side = max(2.2, cell * count)
    figure = new_figure(side + 0.075 * longest + 1.4, side + 0.05 * longest + 0.9, DPI)
    axis = figure.subplots()
    drawn = axis.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    axis.set_facecolor("0.85")  # of classes without pixels
    if numbered:
        for row, column in np.ndindex(*shares.shape):
            value = float(shares[row, column])
            if np.isfinite(value) and value >= 0.05:
                colour = "white" if value > 55 else "black"
                text = f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"
                axis.text(column, row, text, ha="center", va="center", size=8, color=colour)
    if named:
        labels = [short_name(name) for name in names]
        axis.set_xticks(range(count), labels, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(count), labels)
        axis.tick_params(labelsize=9 if numbered else 6, length=0)
    axis.set_xlabel("predicted class" + ("" if named else ", by number"))
    axis.set_ylabel("true class" + ("" if named else ", by number"))
    axis.set_title("Confusion matrix", size=11)
    figure.colorbar(drawn, ax=axis, label="% of the true class's pixels", shrink=0.8, aspect=30)
    return to_png(figure)


def images_chart(scores: np.ndarray) -> bytes:
    """Draw the distribution of the mean IoU of images (N,), fractions.

    Returns:
        The bytes of a png file.
    """
    figure, axis = _new("Images by their mean IoU")
    axis.hist(100 * scores, bins=np.linspace(0, 100, 21).tolist(), color=BLUE, ec="white")
    middle = 100 * float(np.median(scores))
    axis.axvline(middle, color=ORANGE, lw=2)
    _note(axis, f"median {middle:.1f}", upper=True, left=middle > 50)
    axis.set_xlabel("mean IoU over the classes of an image, %")
    axis.set_ylabel("images")
    axis.locator_params(axis="y", integer=True)
    axis.set_xlim(0, 100)
    return to_png(figure)


def calibration_chart(share: np.ndarray, accuracy: np.ndarray, confidence: np.ndarray) -> bytes:
    """Draw accuracy against confidence, and the share of the pixels at each confidence.

    Args:
        share: fraction of the pixels in each bin (bins,).
        accuracy: of the bin's pixels, fractions; nan for a bin without pixels.
        confidence: mean of the bin's pixels, fractions.

    Returns:
        The bytes of a png file.
    """
    figure, axis = _new("Calibration")
    edges = np.linspace(0, 100, len(share) + 1)
    axis.bar(edges[:-1], 100 * share, np.diff(edges), align="edge", color="0.82", ec="white")
    axis.plot([0, 100], [0, 100], "--", color="0.35", lw=1.2)
    axis.plot(100 * confidence, 100 * accuracy, "o-", color=BLUE, ms=4, lw=1.6, clip_on=False)
    axis.set_xlabel("confidence, %")
    axis.set_ylabel("accuracy, %")
    axis.set_xlim(0, 100)
    axis.set_ylim(0, 100)
    return to_png(figure)


def places_chart(
    values: Mapping[str, Sequence[float]],
    places: Sequence[str],
    joined: Sequence[bool],
    title: str,
    along: str,
    label: str,
) -> bytes:
    """Draw scores of several splits at places along a quantity.

    Args:
        values: split -> its scores in the order of the places; nan where undefined.
        places: labels of the places.
        joined: whether a line joins each place with the next, one less than the places.
        title: title of the chart.
        along: name of the quantity.
        label: label of the y axis.

    Returns:
        The bytes of a png file.
    """
    figure, axis = _new(title)
    for (split, scores), (colour, marker, line) in zip(values.items(), STYLES, strict=False):
        axis.plot(range(len(places)), scores, marker, color=colour, ms=6, label=split)
        for n, is_joined in enumerate(joined):
            if is_joined:
                axis.plot([n, n + 1], scores[n : n + 2], line, color=colour, lw=1.4)
    axis.set_xticks(range(len(places)), places, size=9)
    axis.set_xlim(-0.5, len(places) - 0.5)
    highest = max(
        (score for scores in values.values() for score in scores if score == score), default=0
    )
    axis.set_ylim(0, 1.15 * highest or 1)
    axis.set_xlabel(along)
    axis.set_ylabel(label)
    if len(values) > 1:
        axis.legend(fontsize=8)
    return to_png(figure)


def _new(title: str) -> "tuple[Figure, Axes]":
    figure = new_figure(*SIZE, DPI)
    axis = figure.subplots()
    axis.set_title(title, size=11)
    axis.grid(color="0.88", lw=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def _note(axis: "Axes", text: str, upper: bool = False, left: bool = False) -> None:
    """Write a note inside the axes, in a corner, over everything else."""
    box = {"facecolor": "white", "edgecolor": "0.7", "alpha": 0.9, "boxstyle": "round,pad=0.3"}
    axis.text(
        0.04 if left else 0.97,
        0.94 if upper else 0.06,
        text,
        transform=axis.transAxes,
        ha="left" if left else "right",
        va="top" if upper else "bottom",
        size=9,
        bbox=box,
    )
