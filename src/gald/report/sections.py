"""Sections of a report that show one table or one figure."""

import shlex
from typing import Any

import numpy as np
import torch

from gald.comparison.report import written
from gald.metrics.calibration import CalibrationError
from gald.report import figures, tables
from gald.report.layout import Figure, Section
from gald.report.pictures import Source
from gald.report.stored import Stored


def scores(run: Stored) -> Section:
    """Show one number per metric and split."""
    words = ["↑: higher is better, ↓: lower is better."]
    missing = []
    if unfinished := run.results.get("missing_split"):
        missing.append(f"There are no scores of {unfinished}: its evaluation has not ended.")
    return Section("scores", "Scores", words, missing, tables=[tables.scores(run)])


def classes(run: Stored, source: Source | None) -> Section:
    """Show the confusion matrix and the scores of each class."""
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


def calibration(run: Stored) -> Section:
    """Plot accuracy against confidence."""
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


def costs(run: Stored) -> Section:
    """Show parameters and multiply-adds of each part."""
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


def provenance(run: Stored, command: str) -> Section:
    """Show where the numbers are from, and how to check them."""
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
