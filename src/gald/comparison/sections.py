"""Report sections from the differences of two evaluations."""

from collections.abc import Mapping, Sequence

import numpy as np

from gald.comparison.bootstrap import Difference, holm
from gald.comparison.differences import Differences
from gald.comparison.figures import curve_chart, difference_chart
from gald.comparison.report import Section
from gald.metrics.base import CountMetric, Curve

LEVEL = 0.05
HEADER = ("difference", "95% interval", "p", "p (Holm)", "better")  # columns after the two scores
LOWER = " (lower is better)"
Names = tuple[str, str]  # of the first and the second run, in reports
UNNAMED = "A", "B"


def conclusion(miou: Difference, images: int, names: Names = UNNAMED) -> str:
    """Write one sentence on whether the second run is better, with interval and p value."""
    first, second = names
    low, high = f"{100 * miou.low:+.2f}", f"{100 * miou.high:+.2f}"
    if miou.difference == miou.low == miou.high == 0:
        return (
            f"No difference: {first} and {second} have the same mIoU, {100 * miou.a:.2f}%, in "
            "every draw."
        )
    side = "above" if miou.difference > 0 else "below"
    change = f"mIoU of {second} is {100 * abs(miou.difference):.2f} points {side} {first}'s"
    numbers = f"95% interval {low} to {high}, p {_probability(miou.p)}, {images} images"
    if not miou.clear:
        return f"Inside the noise: {change}, and the interval contains 0 ({numbers})."
    return f"{second if miou.difference > 0 else first} is better: {change} ({numbers})."


def sections(
    found: Differences,
    metrics: Sequence[CountMetric],
    images_of_class: Mapping[str, int],
    samples: int,
    names: Names = UNNAMED,
) -> list[Section]:
    """Arrange all differences in sections: single scores, classes, then the curves per metric.

    Args:
        found: difference by key.
        metrics: the metrics that define the keys; the first defines the mIoU.
        images_of_class: number of images with each class, by name.
        samples: number of draws of the bootstrap.
        names: names of the two runs.
    """
    class_names = list(images_of_class)
    owners: dict[str, dict[str, CountMetric]] = {}  # unit -> key of a single score -> its metric
    for metric in metrics:
        for key in metric.score_keys(class_names):
            if key in found and _is_single(key, metric, class_names):
                owners.setdefault(metric.unit, {})[key] = metric
    parts = []
    for unit, of_unit in owners.items():
        title = "Means" if unit == "%" else f"Means in {unit}"
        parts.append(_table(title, {key: found[key] for key in of_unit}, of_unit, samples, names))
    classes = _below(found, "iou/")
    if classes:
        parts.append(_classes(classes, metrics[0], images_of_class, samples, names))
    for metric in metrics:
        for curve in metric.curves:
            parts += _curve(curve, metric, found, samples, names)
    return parts


def clear(rows: Mapping[str, Difference]) -> list[bool]:
    """Return which differences are clear: interval excludes 0, and p below 5% after Holm."""
    adjusted = holm(np.array([row.p for row in rows.values()]))
    return [bool(r.clear and p < LEVEL) for r, p in zip(rows.values(), adjusted, strict=True)]


def _classes(
    rows: Differences,
    metric: CountMetric,
    images_of_class: Mapping[str, int],
    samples: int,
    names: Names,
) -> Section:
    part = _table("Classes", rows, dict.fromkeys(rows, metric), samples, names)
    cells = [[*row, str(images_of_class[name])] for row, name in zip(part.rows, rows, strict=True)]
    words = "The interval of a class in few images (last column) is too narrow."
    return part._replace(
        words=f"{part.words} {words}",
        header=[*part.header, "images"],
        rows=cells,
        figure=("classes.png", difference_chart(rows, clear(rows), "IoU of each class")),
    )


def _curve(
    curve: Curve, metric: CountMetric, found: Differences, samples: int, names: Names
) -> list[Section]:
    """Section of a curve, and a section of all classes at one place of the curve."""
    rows = {place: row for place, row in _below(found, curve.prefix).items() if "/" not in place}
    if curve.shown:
        rows = {place: row for place, row in rows.items() if place in curve.shown}
    if not rows:
        return []
    title = curve.title if metric.higher_is_better else f"{curve.title}{LOWER}"
    name = curve.prefix.strip("/").replace("/", "_")
    better = bool(metric.higher_is_better)
    chart = curve_chart(
        rows, clear(rows), title, curve.along, metric.factor, metric.unit, names, better
    )
    part = _table(title, rows, dict.fromkeys(rows, metric), samples, names)
    parts = [part._replace(figure=(f"{name}.png", chart))]
    place = "3" if "3" in rows else next(iter(rows))
    by_class = _below(found, f"{curve.prefix}{place}/")
    if by_class:
        title = f"{curve.title} of each class, {metric.place_label(place)}"
        chart = difference_chart(
            by_class, clear(by_class), title, factor=metric.factor, higher_is_better=better
        )
        part = _table(title, by_class, dict.fromkeys(by_class, metric), samples, names)
        parts.append(part._replace(figure=(f"{name}_classes.png", chart)))
    return parts


def _is_single(key: str, metric: CountMetric, class_names: Sequence[str]) -> bool:
    of_class = any(key.endswith(f"/{name}") for name in class_names)
    return not of_class and not any(key.startswith(curve.prefix) for curve in metric.curves)


def _below(found: Differences, prefix: str) -> Differences:
    return {key.removeprefix(prefix): row for key, row in found.items() if key.startswith(prefix)}


def _table(
    title: str,
    rows: Mapping[str, Difference],
    owners: Mapping[str, CountMetric],
    samples: int,
    names: Names,
) -> Section:
    adjusted = holm(np.array([row.p for row in rows.values()]))
    is_clear = clear(rows)
    cells = []
    for (name, row), p, sure in zip(rows.items(), adjusted, is_clear, strict=True):
        metric = owners[name]
        lower = not metric.higher_is_better and "lower is better" not in title
        cells.append([f"{name}{LOWER * lower}", *_cells(row, p, sure, metric, names)])
    unit = next(iter(owners.values())).unit
    header = ("score", *(f"{name} {unit}" for name in names), *HEADER)
    words = _significance(rows, is_clear, samples)
    return Section(title, words, header, cells, tones=_tones(rows, owners))


def _tones(rows: Mapping[str, Difference], owners: Mapping[str, CountMetric]) -> list[float]:
    """Scale the differences to -1 ... 1, above 0 where the second run is better."""
    changes = [
        (1 if owners[name].higher_is_better else -1) * owners[name].factor * float(row.difference)
        for name, row in rows.items()
    ]
    largest = max((abs(change) for change in changes if change == change), default=0) or 1
    return [change / largest if change == change else 0.0 for change in changes]


def _significance(rows: Mapping[str, Difference], is_clear: Sequence[bool], samples: int) -> str:
    tests = sum(not np.isnan(row.p) for row in rows.values())
    excluding_zero = sum(bool(row.clear) for row in rows.values())
    words = (
        f"{excluding_zero} of {tests} intervals exclude 0; about {LEVEL * tests:.1f} would by "
        f"chance if both were equal. After Holm's correction {sum(is_clear)} remain: rows "
        "without a question mark, filled markers in figures."
    )
    if tests * 2 / (samples + 1) >= LEVEL:
        needed = int(2 * tests / LEVEL)
        words += f" With {samples} samples none can remain: use --samples {needed} or more."
    return words


def _cells(
    row: Difference, adjusted: np.ndarray, sure: bool, metric: CountMetric, names: Names
) -> list[str]:
    factor = metric.factor
    if np.isnan(row.difference) or np.isnan(row.p):
        scores = ["absent" if np.isnan(value) else f"{factor * value:.2f}" for value in row[:2]]
        return [*scores, *[""] * len(HEADER)]
    better = names[int((row.difference > 0) == metric.higher_is_better)]
    if not row.clear:
        better = "noise"
    elif not sure:
        better += "?"
    return [
        f"{factor * row.a:.2f}",
        f"{factor * row.b:.2f}",
        f"{factor * row.difference:+.2f}",
        f"{factor * row.low:+.2f} to {factor * row.high:+.2f}",
        _probability(row.p),
        _probability(adjusted),
        better,
    ]


def _probability(p: np.ndarray) -> str:
    return f"{p:.4f}" if p < 0.01 else f"{p:.2f}"
