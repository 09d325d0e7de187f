"""Tables of a report: scores, classes, confusions and costs."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gald.comparison.bootstrap import class_iou
from gald.comparison.training import chose_the_checkpoint, upper_bound
from gald.metrics.base import CountMetric
from gald.painting import Palette
from gald.report.stored import Stored

MOST_CONFUSIONS = 10
UP, DOWN = "\N{NO-BREAK SPACE}↑", "\N{NO-BREAK SPACE}↓"  # a larger, or a smaller, number is better
PERCENT = "\N{NO-BREAK SPACE}%"
SINGLE = (("miou", "mIoU"), ("accuracy", "pixel accuracy"), ("mean_accuracy", "mean accuracy"))
SINGLE += (("fw_iou", "frequency-weighted IoU"),)


class Cell(NamedTuple):
    """Cell of a table.

    Attributes:
        text: what it shows.
        bar: length of a bar behind the text, from 0 to 1; None for no bar.
        colour: RGB of a swatch before the text; None for no swatch.
    """

    text: str
    bar: float | None = None
    colour: tuple[int, int, int] | None = None


class Table(NamedTuple):
    """Table of a report; the first column is text, and so are the columns in `words`.

    Attributes:
        caption: what it shows, in one line.
        header: names of the columns.
        rows: cells.
        words: further columns of text; all others are numbers.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    words: Sequence[str] = ()


def percent(value: float | None, digits: int = 1) -> str:
    """Format a fraction in percent, without the sign; `absent` if it is undefined."""
    return "absent" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def headlines(run: Stored) -> Iterator[tuple[str, str, CountMetric]]:
    """Yield key, label and metric of the one score that represents each metric but the first."""
    prefix = f"{run.split}/"
    known = {key.removeprefix(prefix) for key in run.results if key.startswith(prefix)}
    for metric in run.metrics[1:]:
        if (headline := metric.headline(known, run.class_names)) is not None:
            yield *headline, metric


def scores(run: Stored) -> Table:
    """Build the table of single scores, with a column for each split."""
    rows = [
        [Cell(f"{label},{PERCENT}{UP}"), *(Cell(percent(run.score(key, s))) for s in run.splits)]
        for key, label in SINGLE
        if run.score(key) is not None
    ]
    for key, label, metric in headlines(run):
        arrow = UP if metric.higher_is_better else DOWN
        values = [run.score(key, split) for split in run.splits]
        cells = [Cell(_shown(value, metric)) for value in values]
        rows.append([Cell(f"{label},\N{NO-BREAK SPACE}{metric.unit}{arrow}"), *cells])
    return Table("One number per metric and split", ("score", *run.splits), rows)


def _shown(value: float | None, metric: CountMetric) -> str:
    return "absent" if value is None else f"{metric.factor * value:.1f}"


def classes(run: Stored, palette: Palette | None) -> Table:
    """Build the table of classes, with a column of IoU for each split.

    Args:
        run: the run.
        palette: colours of the classes, for swatches; None for no swatches.
    """
    names, counts = run.class_names, None
    header = [
        "class",
        *(f"IoU {split},{PERCENT}{UP}" for split in run.splits),
        f"recall,{PERCENT}{UP}",
    ]
    if run.evaluated is not None:
        counts = run.evaluated.class_counts.sum(0)
        images = (run.evaluated.class_counts[:, 1] > 0).sum(0)
        with np.errstate(invalid="ignore"):
            precision, share = counts[0] / counts[2], counts[1] / counts[1].sum()
        taken = _most_taken_for(run)
        header += [f"precision,{PERCENT}{UP}", f"pixels,{PERCENT}", "images"]
    near = next(((k, label) for k, label, m in headlines(run) if _has_classes(run, k)), None)
    if near:
        header.append(f"{near[1]},{PERCENT}{UP}")
    if counts is not None:
        header += ["most often taken for", f"there,{PERCENT}"]
    rows = []
    for k, name in enumerate(names):
        row = [Cell(name, colour=tuple(palette[k]) if palette else None)]
        row += [_bar(run.score(f"iou/{name}", split)) for split in run.splits]
        row.append(Cell(percent(run.score(f"accuracy/{name}"))))
        if counts is not None:
            row += [Cell(percent(precision[k])), Cell(percent(share[k])), Cell(str(images[k]))]
        if near:
            row.append(Cell(percent(run.score(f"{near[0]}/{name}"))))
        if counts is not None:
            other, part = taken[k]
            row += [Cell(other), Cell(percent(part) if other else "")]
        rows.append(row)
    return Table("Scores of each class", header, rows, ("most often taken for",))


def _has_classes(run: Stored, key: str) -> bool:
    return any(f"{run.split}/{key}/{name}" in run.results for name in run.class_names)


def _bar(value: float | None) -> Cell:
    return Cell(percent(value), None if value is None or math.isnan(value) else value)


def confusion(run: Stored) -> np.ndarray:
    """Return the confusion matrix (K, K) of all images, rows true, columns predicted."""
    assert run.evaluated is not None, "the counts are there"
    size = len(run.class_names)
    return run.evaluated.images.total("confusion").reshape(size, size)


def _most_taken_for(run: Stored) -> list[tuple[str, float]]:
    """Return for each class the one that it is most often taken for, and the share of pixels."""
    matrix = confusion(run)
    wrong = matrix - np.diag(matrix.diagonal())
    found = []
    for row, total in zip(wrong, matrix.sum(1), strict=True):
        other = int(row.argmax())
        known = bool(row[other])
        found.append((run.class_names[other], row[other] / total) if known else ("", math.nan))
    return found


def confusions(run: Stored) -> Table:
    """Build the table of the pairs of classes with most wrong pixels."""
    matrix = confusion(run)
    wrong = matrix - np.diag(matrix.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSIONS]
    rows = []
    for true, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        pixels = wrong[true, predicted]
        if not pixels:
            break
        share = float(pixels / wrong.sum())
        row = [Cell(run.class_names[true]), Cell(run.class_names[predicted])]
        row += [Cell(percent(float(pixels / matrix[true].sum()))), Cell(percent(share), share)]
        rows.append(row)
    header = ("true class", "taken for", "of the class, %", "of all wrong pixels, %")
    return Table("Most frequent confusions", header, rows, ("taken for",))


def conclusion(run: Stored) -> str:
    """Summarise the scores in two or three sentences."""
    images = f" on {len(run.evaluated.images.names)} images" if run.evaluated else ""
    text = f"mIoU {percent(run.score('miou'))}%{images} of {run.split}."
    iou = {name: run.score(f"iou/{name}") for name in run.class_names}
    known = {name: value for name, value in iou.items() if value is not None}
    if len(known) > 1:
        best, worst = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
        text += (
            f" Best class: {best} ({percent(known[best])}%), worst: {worst} "
            f"({percent(known[worst])}%)."
        )
    if run.evaluated is not None and (rows := confusions(run).rows):
        true, predicted, _, share = rows[0]
        text += (
            f" The most frequent error takes {true.text} for {predicted.text}: {share.text}% of "
            "all wrong pixels."
        )
    warnings = chose_the_checkpoint(run.results, run.split), upper_bound(run.receipt, "Caution")
    return " ".join(filter(None, [text, *warnings]))


def image_scores(run: Stored) -> np.ndarray:
    """Compute the mean IoU over the classes of each image (N,); nan for an image without any."""
    assert run.evaluated is not None, "the counts are there"
    iou = class_iou(run.evaluated.class_counts)
    present = np.count_nonzero(~np.isnan(iou), -1)
    with np.errstate(invalid="ignore"):
        return np.where(present > 0, np.nansum(iou, -1) / present, np.nan)


def costs(run: Stored) -> Table | None:
    """Build the table of parameters and multiply-adds per part; None if there are none."""
    prefix, suffix = "cost/", "/params"
    names = [
        key.removeprefix(prefix).removesuffix(suffix)
        for key in run.results
        if key.startswith(prefix) and key.endswith(suffix)
    ]
    total_params, total_gmacs = (_cost(run, "total", kind) for kind in ("params", "gmacs"))
    if not names or not total_params:
        return None
    rows = []
    for name in names:
        params, gmacs = _cost(run, name, "params"), _cost(run, name, "gmacs")
        row = [Cell(name), _part(params, total_params, ",.0f"), _part(gmacs, total_gmacs, ".3g")]
        rows.append(row)
    caption = "Parameters and multiply-adds of one image, by part"
    return Table(caption, ("part", "parameters", "GMACs"), rows)


def _cost(run: Stored, name: str, kind: str) -> float | None:
    value = run.results.get(f"cost/{name}/{kind}")
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None


def _part(value: float | None, total: float | None, form: str) -> Cell:
    if value is None:
        return Cell("")
    share = value / total if total else 0.0
    return Cell(format(value, form), min(1.0, max(0.0, share)))
