"""Report sections from the differences of two evaluations."""

from collections.abc import Mapping, Sequence

import numpy as np

from gald.comparison.bootstrap import Difference, holm
from gald.comparison.differences import Differences
from gald.comparison.figures import curve_chart, difference_chart
from gald.comparison.report import Section
from gald.metrics.base import CountMetric, Curve

LEVEL = 0.05
HEADER = ("B - A", "95% interval", "p", "p (Holm)", "better")  # columns after the two scores
LOWER = " (lower is better)"


def conclusion(miou: Difference, images: int) -> str:
    """Write one sentence on whether B is better than A, with interval and p value."""
    low, high = f"{100 * miou.low:+.2f}", f"{100 * miou.high:+.2f}"
    if miou.difference == miou.low == miou.high == 0:
        return f"No difference: A and B have the same mIoU, {100 * miou.a:.2f}%, in every draw."
    side = "above" if miou.difference > 0 else "below"
    change = f"mIoU of B is {100 * abs(miou.difference):.2f} points {side} A's"
    numbers = f"95% interval {low} to {high}, p {_probability(miou.p)}, {images} images"
    if not miou.clear:
        return f"Inside the noise: {change}, and the interval contains 0 ({numbers})."
    return f"{'B' if miou.difference > 0 else 'A'} is better: {change} ({numbers})."


def sections(
    found: Differences,
    metrics: Sequence[CountMetric],
    images_of_class: Mapping[str, int],
    samples: int,
) -> list[Section]:
    """Arrange all differences in sections: single scores, classes, then the curves per metric.

    Args:
        found: difference by key.
        metrics: the metrics that define the keys; the first defines the mIoU.
        images_of_class: number of images with each class, by name.
        samples: number of draws of the bootstrap.
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
        parts.append(_table(title, {key: found[key] for key in of_unit}, of_unit, samples))
    classes = _below(found, "iou/")
    if classes:
        parts.append(_classes(classes, metrics[0], images_of_class, samples))
    for metric in metrics:
        for curve in metric.curves:
            parts += _curve(curve, metric, found, samples)
    return parts


def clear(rows: Mapping[str, Difference]) -> list[bool]:
    """Return which differences are clear: interval excludes 0, and p below 5% after Holm."""
    adjusted = holm(np.array([row.p for row in rows.values()]))
    return [bool(r.clear and p < LEVEL) for r, p in zip(rows.values(), adjusted, strict=True)]


def _classes(
    rows: Differences, metric: CountMetric, images_of_class: Mapping[str, int], samples: int
) -> Section:
    part = _table("Classes", rows, dict.fromkeys(rows, metric), samples)
    cells = [[*row, str(images_of_class[name])] for row, name in zip(part.rows, rows, strict=True)]
    words = "The interval of a class in few images (last column) is too narrow."
    return part._replace(
        words=f"{part.words} {words}",
        header=[*part.header, "images"],
        rows=cells,
        figure=("classes.png", difference_chart(rows, clear(rows), "IoU of each class")),
    )


def _curve(curve: Curve, metric: CountMetric, found: Differences, samples: int) -> list[Section]:
    """Section of a curve, and a section of all classes at one place of the curve."""
    rows = {place: row for place, row in _below(found, curve.prefix).items() if "/" not in place}
    if curve.shown:
        rows = {place: row for place, row in rows.items() if place in curve.shown}
    if not rows:
        return []
    title = curve.title if metric.higher_is_better else f"{curve.title}{LOWER}"
    name = curve.prefix.strip("/").replace("/", "_")
    chart = curve_chart(rows, clear(rows), title, curve.along, metric.factor, metric.unit)
    part = _table(title, rows, dict.fromkeys(rows, metric), samples)
    parts = [part._replace(figure=(f"{name}.png", chart))]
    place = "3" if "3" in rows else next(iter(rows))
    by_class = _below(found, f"{curve.prefix}{place}/")
    if by_class:
        title = f"{curve.title} of each class, {metric.place_label(place)}"
        chart = difference_chart(by_class, clear(by_class), title, factor=metric.factor)
        part = _table(title, by_class, dict.fromkeys(by_class, metric), samples)
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
) -> Section:
    adjusted = holm(np.array([row.p for row in rows.values()]))
    is_clear = clear(rows)
    cells = []
    for (name, row), p, sure in zip(rows.items(), adjusted, is_clear, strict=True):
        metric = owners[name]
        lower = not metric.higher_is_better and "lower is better" not in title
        cells.append([f"{name}{LOWER * lower}", *_cells(row, p, sure, metric)])
    unit = next(iter(owners.values())).unit
    header = ("score", f"A {unit}", f"B {unit}", *HEADER)
    return Section(title, _significance(rows, is_clear, samples), header, cells)


def _significance(rows: Mapping[str, Difference], is_clear: Sequence[bool], samples: int) -> str:
    tests = sum(not np.isnan(row.p) for row in rows.values())
    excluding_zero = sum(bool(row.clear) for row in rows.values())
    words = (
        f"{excluding_zero} of {tests} intervals exclude 0; about {LEVEL * tests:.1f} would by "
        f"chance if A and B were equal. After Holm's correction {sum(is_clear)} remain: rows "
        "without a question mark, filled markers in figures."
    )
    if tests * 2 / (samples + 1) >= LEVEL:
        needed = int(2 * tests / LEVEL)
        words += f" With {samples} samples none can remain: use --samples {needed} or more."
    return words


def _cells(row: Difference, adjusted: np.ndarray, sure: bool, metric: CountMetric) -> list[str]:
    factor = metric.factor
    if np.isnan(row.difference) or np.isnan(row.p):
        scores = ["absent" if np.isnan(value) else f"{factor * value:.2f}" for value in row[:2]]
        return [*scores, *[""] * len(HEADER)]
    better = "B" if (row.difference > 0) == metric.higher_is_better else "A"
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
