"""Which differences the report shows together, and what it says about them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gald.comparison.bootstrap import Difference, holm
from gald.comparison.differences import Differences, lower_is_better
from gald.comparison.figures import curve_chart, difference_chart
from gald.comparison.report import Section

LEVEL = 0.05
DISTANCES = ("1", "2", "3", "5", "8", "12", "20", "40", "beyond")  # of the trimap curve, in pixels
HEADER = ("A %", "B %", "B - A", "95% interval", "p", "p (Holm)", "better")


class Curve(NamedTuple):
    """Scores along a quantity: those whose keys are this prefix and one more word."""

    prefix: str
    title: str
    along: str


CURVES = (
    Curve("size/recall/", "Recall by size of the object", "largest size, of the image's pixels"),
    Curve("size/iou/", "IoU by size of the object", "largest size, of the image's pixels"),
    Curve("boundary_iou/", "Boundary IoU", "width, px or share of the diagonal"),
    Curve("boundary_f/", "Boundary F-score", "width, px or share of the diagonal"),
    Curve("boundary_f_authors/", "Boundary F-score, the authors' protocol", "width, px"),
    Curve("trimap/", "Error near boundaries", "distance to the nearest boundary, px"),
)


def verdict(miou: Difference, images: int) -> str:
    """Say in one sentence whether B is better than A, and how sure that is."""
    low, high, p = _signed(miou.low), _signed(miou.high), _probability(miou.p)
    if miou.difference == miou.low == miou.high == 0:
        return f"No difference: A and B have the same mIoU, {100 * miou.a:.2f}%, in every draw."
    side = "above" if miou.difference > 0 else "below"
    change = f"mIoU of B is {100 * abs(miou.difference):.2f} points {side} A's"
    known = f"95% interval {low} to {high}, p {p}, {images} images"
    if not miou.clear:
        return f"Inside the noise: {change}, and the interval holds 0 ({known})."
    return f"{'B' if miou.difference > 0 else 'A'} is better: {change} ({known})."


def sections(found: Differences, images_of_class: Mapping[str, int], samples: int) -> list[Section]:
    """Arrange all differences: means, classes, sizes, boundaries, distances."""
    means = {key: row for key, row in found.items() if _is_mean(key)}
    parts = [_table("Means", means, samples)]
    classes = _below(found, "iou/")
    if classes:
        part = _table("Classes", classes, samples, prefix="iou/")
        chart = difference_chart(classes, clear(classes), "IoU of each class")
        rows = [
            [*row, str(images_of_class[name])] for row, name in zip(part.rows, classes, strict=True)
        ]
        words = "Of a class in few images, the interval is too narrow: see the last column."
        parts.append(
            part._replace(
                words=f"{part.words} {words}",
                header=[*part.header, "images"],
                rows=rows,
                picture=("classes.png", chart),
            )
        )
    for curve in CURVES:
        rows = {name: row for name, row in _below(found, curve.prefix).items() if "/" not in name}
        if curve.prefix == "trimap/":
            rows = {name: row for name, row in rows.items() if name in DISTANCES}
        if not rows:
            continue
        lower = lower_is_better(curve.prefix)
        title = f"{curve.title} (lower is better)" if lower else curve.title
        chart = curve_chart(rows, clear(rows), title, curve.along)
        name = curve.prefix.strip("/").replace("/", "_") + ".png"
        part = _table(title, rows, samples, curve.prefix)
        parts.append(part._replace(picture=(name, chart)))
        width = "3" if "3" in rows else next(iter(rows))
        by_class = _below(found, f"{curve.prefix}{width}/")
        if by_class:
            title = f"{curve.title} of each class at width {width}"
            chart = difference_chart(by_class, clear(by_class), title)
            part = _table(title, by_class, samples, curve.prefix)
            parts.append(part._replace(picture=(name.replace(".png", "_classes.png"), chart)))
    return parts


def clear(rows: Mapping[str, Difference]) -> list[bool]:
    """Which differences hold for all rows at once: interval off 0, and p below 5% after Holm."""
    adjusted = holm(np.array([row.p for row in rows.values()]))
    return [bool(r.clear and p < LEVEL) for r, p in zip(rows.values(), adjusted, strict=True)]


def _is_mean(key: str) -> bool:
    return "/" not in key or key == "thin/miou"


def _below(found: Differences, prefix: str) -> Differences:
    return {key.removeprefix(prefix): row for key, row in found.items() if key.startswith(prefix)}


def _table(title: str, rows: Mapping[str, Difference], samples: int, prefix: str = "") -> Section:
    adjusted = holm(np.array([row.p for row in rows.values()]))
    surely = clear(rows)
    cells = []
    for (name, row), p, sure in zip(rows.items(), adjusted, surely, strict=True):
        lower = lower_is_better(prefix + name)
        label = f"{name} (lower is better)" if lower and not prefix else name
        cells.append([label, *_cells(row, p, sure, lower)])
    return Section(title, _chances(rows, surely, samples), ("score", *HEADER), cells)


def _chances(rows: Mapping[str, Difference], surely: Sequence[bool], samples: int) -> str:
    asked = sum(not np.isnan(row.p) for row in rows.values())
    off = sum(bool(row.clear) for row in rows.values())
    words = (
        f"{off} of {asked} intervals leave out 0; about {LEVEL * asked:.1f} would by chance if A "
        f"and B were equal. After Holm's correction {sum(surely)} remain: those without a question "
        "mark, filled in pictures."
    )
    if asked * 2 / (samples + 1) >= LEVEL:
        needed = int(2 * asked / LEVEL)
        words += f" With {samples} samples none can: take --samples {needed} or more."
    return words


def _cells(row: Difference, adjusted: np.ndarray, sure: bool, lower: bool) -> list[str]:
    if np.isnan(row.difference) or np.isnan(row.p):
        scores = ["absent" if np.isnan(value) else f"{100 * value:.2f}" for value in row[:2]]
        return [*scores, *[""] * (len(HEADER) - 2)]
    better = "B" if (row.difference < 0) == lower else "A"
    if not row.clear:
        better = "noise"
    elif not sure:
        better += "?"
    return [
        f"{100 * row.a:.2f}",
        f"{100 * row.b:.2f}",
        _signed(row.difference),
        f"{_signed(row.low)} to {_signed(row.high)}",
        _probability(row.p),
        _probability(adjusted),
        better,
    ]


def _signed(value: np.ndarray) -> str:
    return f"{100 * value:+.2f}"


def _probability(p: np.ndarray) -> str:
    return f"{p:.4f}" if p < 0.01 else f"{p:.2f}"
