"""Section of a report: scores along widths, distances and sizes."""

import math
from itertools import pairwise

from gald.metrics.base import CountMetric, Curve
from gald.report import figures, tables
from gald.report.layout import Figure, Section
from gald.report.stored import Stored


def boundaries(run: Stored) -> Section:
    """Plot every curve of the metrics, for all splits."""
    section = Section("boundaries", "Boundaries and sizes")
    drawn = [
        figure
        for metric in run.metrics
        for curve in metric.curves
        if (figure := _along(run, metric, curve)) is not None
    ]
    if not drawn:
        reason = run.missing or "no such metric was counted; metrics=all counts them"
        return section._replace(missing=[f"There are no boundary and size plots: {reason}."])
    words = ["Where are the errors: near the boundaries, or in small objects?"]
    if objects := _objects(run):
        words.append(f"Objects in {run.split} by their share of the image: {objects}.")
    return section._replace(words=words, figures=drawn)


def _objects(run: Stored) -> str:
    """Count the true objects by their size."""
    places = _known(run, "size/objects/")
    counts = {place: run.score(f"size/objects/{place}") for place in places}
    parts = [f"{n} up to {p.removeprefix('to_')}" for p, n in counts.items() if n is not None]
    return ", ".join(parts)


def _known(run: Stored, prefix: str) -> list[str]:
    """Return the places of a curve that have a score, without those of single classes."""
    whole = f"{run.split}/{prefix}"
    places = [key.removeprefix(whole) for key in run.results if key.startswith(whole)]
    return [place for place in places if "/" not in place]


def _along(run: Stored, metric: CountMetric, curve: Curve) -> Figure | None:
    places = [p for p in _known(run, curve.prefix) if not curve.shown or p in curve.shown]
    if not places:
        return None
    values = {
        split: [_number(run.score(f"{curve.prefix}{p}", split), metric) for p in places]
        for split in run.splits
    }
    units = [_unit(place) for place in places]
    plain = "share" not in units  # the label of the axis has the one unit
    labels = [_place_label(place, metric, plain) for place in places]
    joined = [one == other for one, other in pairwise(units)]
    arrow = tables.UP if metric.higher_is_better else tables.DOWN
    title, along = f"{curve.title}{arrow}", curve.along
    png = figures.places_chart(values, labels, joined, title, along, metric.unit)
    shown = ", ".join(
        f"{label} {value:.1f}" for label, value in zip(labels, values[run.split], strict=True)
    )
    alt = f"{curve.title} on {run.split}, in {metric.unit}: {shown}."
    return Figure(f"{curve.prefix.strip('/').replace('/', '_')}.png", png, alt)


def _number(value: float | None, metric: CountMetric) -> float:
    return math.nan if value is None else metric.factor * value


def _place_label(place: str, metric: CountMetric, plain: bool) -> str:
    """Format a place for the axis, without what the label of the axis says."""
    if place.startswith("to_"):
        return place.removeprefix("to_")
    label = metric.place_label(place).removesuffix(" wide")
    return label.removesuffix(" px") if plain else label


def _unit(place: str) -> str:
    try:
        return "px" if float(place) >= 1 else "share"
    except ValueError:
        return place[:3]
