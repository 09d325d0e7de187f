"""The page of a report: its sections, each with its figures, tables and what is missing."""

import math
import shlex
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from gald.comparison.names import run_names
from gald.comparison.report import written
from gald.metrics.base import CountMetric
from gald.metrics.base import Curve as Places
from gald.metrics.calibration import CalibrationError
from gald.report import figures, tables
from gald.report.curves import Curve, read_curves
from gald.report.pictures import Chosen, Source, choose, draw
from gald.report.stored import Stored
from gald.report.tables import Table
from gald.run.plain import RefusedError
from gald.run.shape import read_config_file

GetSource = Callable[[], Source]
_TOLERATED = 1e-3  # share of an image's pixels that may be predicted differently without a word


class Figure(NamedTuple):
    """Figure of a report.

    Attributes:
        file: name of its png file.
        png: its bytes.
        alt: what it shows, for readers who cannot see it.
        caption: line below it; may be empty.
        broad: whether it needs the width of the page.
    """

    file: str
    png: bytes
    alt: str
    caption: str = ""
    broad: bool = False


class Section(NamedTuple):
    """Section of a report: charts, then pictures, tables and facts.

    `missing` has a sentence for each part that cannot be shown.
    """

    key: str
    title: str
    words: Sequence[str] = ()
    missing: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    pictures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    facts: Sequence[tuple[str, str]] = ()


class Page(NamedTuple):
    """Everything that a report shows."""

    title: str
    about: str
    conclusion: str
    tiles: Sequence[tuple[str, str]]
    sections: Sequence[Section]

    @property
    def missing(self) -> list[str]:
        """All sentences about what is missing."""
        return [sentence for section in self.sections for sentence in section.missing]


def build_page(run: Stored, get_source: GetSource, command: str) -> Page:
    """Build all sections.

    Args:
        run: the results.
        get_source: returns images and network; raises an OSError or ValueError if there are none.
        command: the command line that writes the report.

    Raises:
        RefusedError: a file would call other code.
    """
    try:
        source, fault = (get_source(), "") if run.evaluated is not None else (None, run.missing)
    except RefusedError:
        raise
    except (OSError, ValueError) as error:
        source, fault = None, " ".join(str(error).split())
    sections = [
        _scores(run),
        _curves(run),
        _classes(run, source),
        _images(run, source, fault),
        _calibration(run),
        _places(run),
        _costs(run),
        _provenance(run, command),
    ]
    return Page(
        f"Report of {run_names([run.folder])[0]}",
        _about(run),
        tables.conclusion(run),
        _tiles(run),
        sections,
    )


def _about(run: Stored) -> str:
    """Describe data and network in one line."""
    data = run.receipt.get("data")
    target = data.get("_target_") if isinstance(data, dict) else None
    parts = [f"data {str(target).split('.')[-2]}"] if target and "." in str(target) else []
    parts += _network(run)
    parts.append(f"{len(run.class_names)} classes")
    parts.append(f"evaluated on {' and '.join(run.splits)}, details of {run.split}")
    for key, text in (("epochs", "{} epochs"), ("steps", "{} steps"), ("seed", "seed {}")):
        if run.results.get(key) is not None:
            parts.append(text.format(run.results[key]))
    return " · ".join(parts)


def _network(run: Stored) -> list[str]:
    """Name backbone, GA and LD, if the folder has the configuration of the run."""
    try:
        model = read_config_file(run.folder / "config.yaml").get("model")
    except (OSError, ValueError):
        return []
    model = model if isinstance(model, dict) else {}
    parts = {key: model.get(key) for key in ("backbone", "ga", "ld")}
    named = {key: part for key, part in parts.items() if isinstance(part, dict)}
    names = [str(named.get("backbone", {}).get("name") or "")]
    for key in ("ga", "ld"):
        target = str(named.get(key, {}).get("_target_") or "")
        names.append(f"{key.upper()} {target.rpartition('.')[2]}" if target else "")
    return [name for name in names if name]


def _tiles(run: Stored) -> list[tuple[str, str]]:
    tiles = [
        (f"mIoU, {split}{tables.UP}", f"{tables.percent(run.score('miou', split))}%")
        for split in run.splits
    ]
    tiles.append(
        (f"pixel accuracy, {run.split}{tables.UP}", f"{tables.percent(run.score('accuracy'))}%")
    )
    for key, label, metric in tables.headlines(run):
        if metric.name in ("boundary_iou", "ece") and (value := run.score(key)) is not None:
            arrow = tables.UP if metric.higher_is_better else tables.DOWN
            tiles.append((f"{label}, {run.split}{arrow}", f"{100 * value:.1f}%"))
    if isinstance(params := run.results.get("params"), int):
        tiles.append(("parameters", f"{params / 1e6:.2f} M"))
    if isinstance(gmacs := run.results.get("cost/total/gmacs"), int | float):
        tiles.append(("multiply-adds", f"{gmacs:.3g} G"))
    if isinstance(seconds := run.results.get("seconds"), int | float):
        tiles.append(("time of the run", _duration(seconds)))
    return tiles


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _scores(run: Stored) -> Section:
    words = ["↑ marks a score of which more is better, ↓ one of which less is better."]
    missing = []
    if unfinished := run.results.get("missing_split"):
        missing.append(f"There are no scores of {unfinished}: its evaluation has not ended.")
    return Section("scores", "Scores", words, missing, tables=[tables.scores(run)])


def _curves(run: Stored) -> Section:
    section = Section("curves", "Training")
    try:
        curves = read_curves(run.folder / "metrics.csv")
    except (OSError, ValueError) as error:
        return section._replace(missing=[f"There are no curves: {error}."])
    losses = {key: curves[key] for key in ("train/loss", "val/loss") if key in curves}
    drawn = []
    if losses:
        named = {key.split("/")[0]: curve for key, curve in losses.items()}
        png = figures.curves_chart(named, "Loss", "loss")
        drawn.append(Figure("loss.png", png, f"Loss by step: {_course(losses)}."))
    if "val/miou" in curves:
        curve = {"val/miou": curves["val/miou"]}
        png = figures.curves_chart(curve, "mIoU on val", "mIoU, %", 100, best=True)
        drawn.append(Figure("val_miou.png", png, f"mIoU on val by step: {_course(curve)}."))
    rates = {key: curve for key, curve in curves.items() if key.startswith("lr")}
    if rates:
        png = figures.curves_chart(_distinct(rates), "Learning rate", "learning rate")
        drawn.append(Figure("learning_rate.png", png, f"Learning rate: {_course(rates)}."))
    if not drawn:
        return section._replace(missing=["There are no curves: metrics.csv has none of this run."])
    return section._replace(figures=drawn)


def _course(curves: dict[str, Curve]) -> str:
    """Describe curves in words."""
    parts = (f"{n} from {c.values[0]:.3g} to {c.values[-1]:.3g}" for n, c in curves.items())
    return "; ".join(parts)


def _distinct(rates: dict[str, Curve]) -> dict[str, Curve]:
    """Join learning rates that are equal, with short names of their groups."""
    names: dict[tuple[float, ...], list[str]] = {}
    curves: dict[tuple[float, ...], Curve] = {}
    for key, curve in rates.items():
        values = tuple(curve.values)
        names.setdefault(values, []).append(key.removeprefix("lr-"))
        curves[values] = curve
    kept = list(names)[:4]  # of layer-wise rates, the first ones
    return {_group(names[values]): curves[values] for values in kept}


def _group(names: Sequence[str]) -> str:
    first = names[0]
    return first if len(names) == 1 else f"{first} and {len(names) - 1} more"


def _classes(run: Stored, source: Source | None) -> Section:
    section = Section("classes", "Classes")
    table = tables.classes(run, source.palette if source else None)
    if run.evaluated is None:
        sentence = f"There is no confusion matrix: {run.missing}."
        return section._replace(missing=[sentence], tables=[table])
    matrix = tables.confusion(run)
    png = figures.confusion_chart(matrix, run.class_names)
    pairs = tables.confusions(run)
    alt = "Confusion matrix in percent of each true class; the largest entries are in the table."
    figure = Figure("confusion_matrix.png", png, alt, broad=True)
    words = (
        "Recall is the share of a class's pixels that are found, precision the share of the "
        "pixels predicted as the class that are right."
    )
    return section._replace(words=[words], figures=[figure], tables=[table, pairs])


def _images(run: Stored, source: Source | None, fault: str) -> Section:
    section = Section("images", "Worst and best images")
    if run.evaluated is None:
        return section._replace(missing=[f"The images are not ranked: {run.missing}."])
    scores = tables.image_scores(run)
    chosen = choose(run.evaluated, scores)
    known = scores[~np.isnan(scores)]
    if not chosen:
        return section._replace(missing=["The images are not ranked: all their pixels are void."])
    words = [
        "Images are ranked by their mean IoU over the classes that occur in them, in the ground "
        "truth or the prediction. The mIoU above is over all images together."
    ]
    rows = [
        [tables.Cell(one.name), tables.Cell(one.kind), *map(tables.Cell, _numbers(one))]
        for one in chosen
    ]
    header = ("image", "rank", "mean IoU, % ↑", "pixel accuracy, % ↑")
    ranked = tables.Table("The images by name", header, rows, ("rank",))
    alt = f"Histogram of the mean IoU of {len(known)} images, median {100 * np.median(known):.1f}%."
    drawn = [Figure("image_scores.png", figures.images_chart(known), alt)]
    section = section._replace(words=words)
    pictures, change = [], 0.0
    try:
        if source is not None:
            pictures, change = draw(run.evaluated, chosen, source)
    except (OSError, ValueError) as error:
        fault = " ".join(str(error).split())
    if not pictures:
        sentence = f"The images are not shown: {fault}."
        return section._replace(figures=drawn, missing=[sentence], tables=[ranked])
    if change > _TOLERATED:
        words.append(
            f"The images were predicted again for this report. Up to {100 * change:.1f}% of an "
            "image's pixels now have another class, as on another device or in another precision; "
            "the numbers are those of the evaluation."
        )
    words.append(
        "Each picture has the image, its ground truth, the prediction over the image, and the "
        "errors in orange; void is black."
    )
    ranks, shown = {"worst": 0, "best": 0}, []
    for one, png in zip(chosen, pictures, strict=True):
        ranks[one.kind] += 1
        iou, accuracy = _numbers(one)
        caption = (
            f"{one.kind} {ranks[one.kind]}: {one.name} · mean IoU {iou}%, accuracy {accuracy}%"
        )
        alt = f"Image, ground truth, prediction and errors of {one.name}, {one.kind} images."
        shown.append(Figure(f"{one.kind}_{ranks[one.kind]}.png", png, alt, caption))
    return section._replace(figures=drawn, pictures=shown)


def _numbers(one: Chosen) -> tuple[str, str]:
    return tables.percent(one.score), tables.percent(one.accuracy)


def _calibration(run: Stored) -> Section:
    section = Section("calibration", "Calibration")
    metric = next((m for m in run.metrics if isinstance(m, CalibrationError)), None)
    if run.evaluated is None or metric is None:
        reason = run.missing or "the metric ece was not counted; metrics=all counts it"
        return section._replace(missing=[f"There is no calibration curve: {reason}."])
    try:
        counts = torch.from_numpy(run.evaluated.images.total(metric.name))
        share, accuracy, confidence = (part.numpy() for part in metric.reliability(counts))
    except (ValueError, RuntimeError) as error:  # counted with another number of bins
        reason = " ".join(str(error).split())
        return section._replace(missing=[f"There is no calibration curve: {reason}."])
    filled = np.flatnonzero(share > 0)
    error = tables.percent(run.score(metric.name))
    png = figures.calibration_chart(share, accuracy[filled], confidence[filled])
    mean = float((share[filled] * confidence[filled]).sum())
    right = float((share[filled] * accuracy[filled]).sum())
    words = (
        f"The network is confident of {100 * mean:.1f}% on average, and right in "
        f"{100 * right:.1f}% of the pixels. The calibration error, the mean gap between the two "
        f"over {len(share)} bins of confidence, is {error}%."
    )
    alt = f"Accuracy against confidence in {len(share)} bins; calibration error {error}%."
    caption = "Bars: share of the pixels. Dashed: perfect; below it the network is too confident."
    figure = Figure("calibration.png", png, alt, caption)
    return section._replace(words=[words], figures=[figure])


def _places(run: Stored) -> Section:
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


def _along(run: Stored, metric: CountMetric, curve: Places) -> Figure | None:
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


def _costs(run: Stored) -> Section:
    section = Section("costs", "Cost")
    table = tables.costs(run)
    if table is None:
        sentence = "There are no costs: they are in the results of a training, not of gald eval."
        return section._replace(missing=[sentence])
    words = ["Multiply-adds are counted, for one image of the training's size in evaluation."]
    facts = []
    for key, name in (("device", "device"), ("precision", "precision")):
        if run.results.get(key) is not None:
            facts.append((name, str(run.results[key])))
    if isinstance(seconds := run.results.get("seconds"), int | float):
        facts.append(("training and evaluation", f"{seconds:.0f} s"))
    return section._replace(words=words, tables=[table], facts=facts)


def _provenance(run: Stored, command: str) -> Section:
    results, receipt = run.results, run.receipt
    stored: list[tuple[str, Any]] = [("folder", run.folder), ("command", results.get("command"))]
    stored += [("commit", results.get("commit")), ("checkpoint", receipt.get("checkpoint"))]
    for key in ("checkpoint", "images", "ground_truth", "predictions"):
        name = f"SHA-256 of the {key.replace('_', ' ')}"
        stored.append((name, receipt.get(f"{key}_sha256")))
    versions = [f"{k[8:]} {v}" for k, v in results.items() if k.startswith("version/")]
    stored.append(("versions", ", ".join(versions)))
    shown = [(name, str(value)) for name, value in stored if value]
    check = shlex.join(["gald", "eval", "--check", str(run.folder / "results.json")])
    facts = [*shown, *written(command), ("check every number with", check)]
    return Section("provenance", "Provenance", facts=facts)
