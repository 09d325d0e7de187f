"""Report sections from the differences of two evaluations."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gald.comparison.bootstrap import Difference, holm
from gald.comparison.differences import Differences
from gald.comparison.figures import curve_chart, difference_chart
from gald.comparison.report import Section
from gald.comparison.units import ENOUGH
from gald.metrics.base import CountMetric, Curve

LEVEL = 0.05
HEADER = ("difference", "95% interval", "p", "p (Holm)", "better")  # columns after the two scores
LOWER = " (lower is better)"
HEADLINE = "miou"
Names = tuple[str, str]  # of the first and the second run, in reports
UNNAMED = "A", "B"


class Scope(NamedTuple):
    """What the comparison of two trainings can speak of.

    Attributes:
        images: number of images.
        same_arm: whether the two are trainings of one arm; None if it is not known.
        same_seed: whether they are of one seed, too.
        seed_sd: deviation between seeds that the user states, in points of mIoU, or None.
        margin: difference that counts as none, in points of mIoU, or None.
    """

    images: int
    same_arm: bool | None = None
    same_seed: bool = False
    seed_sd: float | None = None
    margin: float | None = None

    @property
    def without_verdict(self) -> str:
        """Text that stands where a row would name the better run; empty if it may."""
        if self.images < ENOUGH:
            return "no verdict"
        return "same arm" if self.same_arm else ""


class _Part(NamedTuple):
    """Table of a report before it is written: label -> key of a score, and its metric."""

    title: str
    keys: dict[str, str]
    metric: CountMetric | Mapping[str, CountMetric]
    curve: Curve | None = None
    of_classes: bool = False

    def owner(self, label: str) -> CountMetric:
        return self.metric[label] if isinstance(self.metric, Mapping) else self.metric


def conclusion(miou: Difference, scope: Scope, names: Names = UNNAMED) -> str:
    """Write one or two sentences on the difference in mIoU, with interval and p value."""
    first, second = names
    low, high = f"{100 * miou.low:+.2f}", f"{100 * miou.high:+.2f}"
    if miou.difference == miou.low == miou.high == 0:
        return (
            f"No difference: {first} and {second} have the same mIoU, {100 * miou.a:.2f}%, in "
            "every draw."
        )
    side = "above" if miou.difference > 0 else "below"
    change = f"mIoU of {second} is {100 * abs(miou.difference):.2f} points {side} {first}'s"
    numbers = f"95% interval {low} to {high}, p {_probability(miou.p)}, {scope.images} images"
    if scope.images < ENOUGH:
        return (
            f"No verdict: {scope.images} images are too few, evaluate {ENOUGH} or more; {change} "
            f"({numbers})."
        )
    if scope.same_arm:
        if scope.same_seed:
            return (
                f"One arm and one seed: {change} ({numbers}). The configs are equal, so these are "
                "repeats or two checkpoints of one training: no finding about the arm."
            )
        return (
            f"Two seeds of one arm: {change} ({numbers}). The two trainings differ in nothing but "
            "the seed, so this is noise between seeds and no finding about the arm."
        )
    if not miou.clear:
        sentence = f"Inside the noise: {change}, and the interval contains 0 ({numbers})."
    elif scope.seed_sd is None:
        better = second if miou.difference > 0 else first
        sentence = (
            f"Of these two trainings {better} is better: {change} ({numbers}). Another seed may "
            "reverse it: one training a side says nothing about the arms; see --seed-sd, or train "
            "several seeds."
        )
    else:
        better = second if miou.difference > 0 else first
        sentence = f"{better} is better: {change} ({numbers}, seeds included)."
    if scope.margin is not None:
        p = miou.equivalence(scope.margin / 100)
        relation = "Equivalent" if p < LEVEL else "Not shown to be equivalent"
        sentence += (
            f" {relation} within a margin of {scope.margin:g} points (two one-sided tests, "
            f"p {_probability(p)})."
        )
    return sentence


def sections(
    found: Differences,
    metrics: Sequence[CountMetric],
    images_of_class: Mapping[str, int],
    scope: Scope,
    names: Names = UNNAMED,
) -> list[Section]:
    """Arrange all differences in sections: single scores, classes, then the curves per metric.

    The mIoU is the one score that is tested at 5%. All others in the report are one family for
    Holm's correction.

    Args:
        found: difference by key.
        metrics: the metrics that define the keys; the first defines the mIoU.
        images_of_class: number of images with each class, by name.
        scope: what the comparison can speak of.
        names: names of the two runs.
    """
    parts = list(_parts(found, metrics, list(images_of_class)))
    shown = list(dict.fromkeys(key for part in parts for key in part.keys.values()))
    family = [key for key in shown if key != HEADLINE]
    tested = sum(not np.isnan(found[key].p) for key in family)
    adjusted = dict(zip(family, holm(np.array([found[key].p for key in family])), strict=True))
    if HEADLINE in found:
        adjusted[HEADLINE] = found[HEADLINE].p
    return [
        _section(part, found, adjusted, tested, images_of_class, scope, names) for part in parts
    ]


def _parts(
    found: Differences, metrics: Sequence[CountMetric], class_names: Sequence[str]
) -> Iterator[_Part]:
    owners: dict[str, dict[str, CountMetric]] = {}  # unit -> key of a single score -> its metric
    for metric in metrics:
        for key in metric.score_keys(class_names):
            if key in found and _is_single(key, metric, class_names):
                owners.setdefault(metric.unit, {})[key] = metric
    for unit, of_unit in owners.items():
        title = "Means" if unit == "%" else f"Means in {unit}"
        yield _Part(title, {key: key for key in of_unit}, of_unit)
    if classes := _below(found, "iou/"):
        yield _Part("Classes", classes, metrics[0], of_classes=True)
    for metric in metrics:
        for curve in metric.curves:
            places = {p: key for p, key in _below(found, curve.prefix).items() if "/" not in p}
            if curve.shown:
                places = {place: key for place, key in places.items() if place in curve.shown}
            if not places:
                continue
            title = curve.title if metric.higher_is_better else f"{curve.title}{LOWER}"
            yield _Part(title, places, metric, curve)
            place = "3" if "3" in places else next(iter(places))
            if by_class := _below(found, f"{curve.prefix}{place}/"):
                title = f"{curve.title} of each class, {metric.place_label(place)}"
                yield _Part(title, by_class, metric, curve, of_classes=True)


def _section(
    part: _Part,
    found: Differences,
    adjusted: Mapping[str, float],
    tested: int,
    images_of_class: Mapping[str, int],
    scope: Scope,
    names: Names,
) -> Section:
    rows = {label: found[key] for label, key in part.keys.items()}
    sure = [
        bool(row.clear and adjusted[part.keys[label]] < LEVEL) and not scope.without_verdict
        for label, row in rows.items()
    ]
    cells = []
    for (label, row), filled in zip(rows.items(), sure, strict=True):
        metric = part.owner(label)
        lower = not metric.higher_is_better and "lower is better" not in part.title
        p = adjusted[part.keys[label]]
        cells.append([f"{label}{LOWER * lower}", *_cells(row, p, filled, metric, names, scope)])
    header = ["score", *(f"{name} {part.owner(next(iter(rows))).unit}" for name in names), *HEADER]
    words = _significance(rows, sum(sure), tested, scope)
    if part.title == "Classes":
        header.append("images")
        cells = [[*row, str(images_of_class[name])] for row, name in zip(cells, rows, strict=True)]
        words += " The interval of a class in few images (last column) is uncertain."
    tones = [] if scope.without_verdict else _tones(rows, part)
    return Section(part.title, words, header, cells, _figure(part, rows, sure, names), tones)


def _figure(
    part: _Part, rows: Differences, sure: Sequence[bool], names: Names
) -> tuple[str, bytes] | None:
    if part.title == "Classes":
        return "classes.png", difference_chart(rows, sure, "IoU of each class")
    if part.curve is None:
        return None
    metric, name = part.owner(next(iter(rows))), part.curve.prefix.strip("/").replace("/", "_")
    better = bool(metric.higher_is_better)
    if part.of_classes:
        chart = difference_chart(
            rows, sure, part.title, factor=metric.factor, higher_is_better=better
        )
        return f"{name}_classes.png", chart
    chart = curve_chart(
        rows, sure, part.title, part.curve.along, metric.factor, metric.unit, names, better
    )
    return f"{name}.png", chart


def _is_single(key: str, metric: CountMetric, class_names: Sequence[str]) -> bool:
    of_class = any(key.endswith(f"/{name}") for name in class_names)
    return not of_class and not any(key.startswith(curve.prefix) for curve in metric.curves)


def _below(found: Differences, prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix): key for key in found if key.startswith(prefix)}


def _tones(rows: Differences, part: _Part) -> list[float]:
    """Scale the differences to -1 ... 1, above 0 where the second run is better."""
    changes = [
        (1 if part.owner(label).higher_is_better else -1)
        * part.owner(label).factor
        * float(row.difference)
        for label, row in rows.items()
    ]
    largest = max((abs(change) for change in changes if change == change), default=0) or 1
    return [change / largest if change == change else 0.0 for change in changes]


def _significance(rows: Differences, remaining: int, tested: int, scope: Scope) -> str:
    tests = sum(not np.isnan(row.p) for row in rows.values())
    excluding_zero = sum(bool(row.clear) for row in rows.values())
    words = (
        f"{excluding_zero} of {tests} intervals exclude 0; about {LEVEL * tests:.1f} would by "
        "chance if both were equal."
    )
    if scope.without_verdict:
        return words
    return (
        f"{words} After Holm's correction for all {tested} scores of this report besides mIoU "
        f"{remaining} remain: rows without a question mark, filled markers in figures."
    )


def _cells(
    row: Difference, adjusted: float, sure: bool, metric: CountMetric, names: Names, scope: Scope
) -> list[str]:
    factor = metric.factor
    scores = ["absent" if np.isnan(value) else f"{factor * value:.2f}" for value in row[:2]]
    if np.isnan(row.difference):
        return [*scores, *[""] * len(HEADER)]
    change = f"{factor * row.difference:+.2f}"
    if np.isnan(row.p):
        return [*scores, change, "", "", "", "too few images"]
    better = names[int((row.difference > 0) == metric.higher_is_better)]
    if not row.clear:
        better = "noise"
    elif scope.without_verdict:
        better = scope.without_verdict
    elif not sure:
        better += "?"
    return [
        *scores,
        change,
        f"{factor * row.low:+.2f} to {factor * row.high:+.2f}",
        _probability(row.p),
        _probability(adjusted),
        better,
    ]


def _probability(p: np.ndarray | float) -> str:
    if p < 0.0001:
        return "<0.0001"
    return f"{p:.4f}" if p < 0.01 else f"{p:.2f}"
