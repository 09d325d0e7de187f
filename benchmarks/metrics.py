"""Benchmark of metrics: time per image, and the confusion matrix compared with other libraries.

    make bench-metrics
    make bench-metrics ARGS="--markdown FILE"

Images are uint8 labels of 1024x2048. A patchwork has squares of 32 pixels, each with one class, and
a tenth of them void. Its prediction is shifted by 3 rows and 5 columns, with 5% random pixels (none
for "all in place"). In noise every pixel is random. Streets are gald's synthetic images, and the
prediction is the shifted and smoothed mask. All confusion matrices must be equal before they are
timed. Time is CPU time of the process on one thread; the rows run in turn, in a new random order
every round, and the tables have medians.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from hydra.utils import instantiate
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

import data  # benchmarks/data.py, for machine()
from gald.config import CONF_DIR
from gald.data.labels import VOID
from gald.data.synthetic import SyntheticStreets
from gald.inference import LabelMap
from gald.metrics.confusion import ConfusionMatrix

SIZE = (1024, 2048)
Pair = tuple[Tensor, Tensor]  # prediction, mask
Rows = dict[str, Callable[[], object]]


def patchwork(classes: int, noise_fraction: float = 0.05) -> Pair:
    """Return squares of random classes and a shifted prediction with some random pixels."""
    generator = np.random.default_rng(0)
    squares = generator.integers(0, classes, (32, 64)).repeat(32, 0).repeat(32, 1)
    labels = np.roll(squares, (3, 5), (0, 1))
    wrong = generator.random(SIZE) < noise_fraction
    labels[wrong] = generator.integers(0, classes, wrong.sum())
    squares[(generator.random((32, 64)) < 0.1).repeat(32, 0).repeat(32, 1)] = VOID
    return _tensor(labels), _tensor(squares)


def noise(classes: int) -> Pair:
    """Return a random prediction and a random mask."""
    generator = np.random.default_rng(0)
    labels, mask = generator.integers(0, classes, (2, *SIZE))
    mask[generator.random(SIZE) < 0.1] = VOID
    return _tensor(labels), _tensor(mask)


def street(index: int) -> Pair:
    """Return a synthetic street and a shifted, smoothed prediction."""
    mask = np.asarray(SyntheticStreets("val", index + 1, SIZE, 0)[index]["mask"], np.uint8)
    labels = np.where(mask == VOID, np.uint8(0), mask)
    return _tensor(cv2.medianBlur(np.roll(labels, (1, 2), (0, 1)), 7)), _tensor(mask)


def _tensor(labels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(labels, np.uint8))


def confusion_rows(labels: Tensor, mask: Tensor, classes: int) -> Rows:
    """Return rows for the confusion matrix of each library, after a check that all are equal."""
    ours = ConfusionMatrix(classes)
    others = {
        "torchmetrics": MulticlassConfusionMatrix(classes, ignore_index=VOID),
        "torchmetrics, unchecked": MulticlassConfusionMatrix(
            classes, ignore_index=VOID, validate_args=False
        ),
    }
    matrix = ours.count(LabelMap(labels, None), mask).view(classes, classes)
    rows: Rows = {"ours": lambda: ours.count(LabelMap(labels, None), mask)}
    for name, metric in others.items():
        if not torch.equal(metric(labels[None], mask[None]), matrix):
            raise SystemExit(f"{name} returns another confusion matrix than ours")
        rows[name] = lambda metric=metric: metric(labels[None], mask[None])
        metric.reset()
    try:
        from mmseg.evaluation.metrics.iou_metric import IoUMetric
    except ImportError as error:
        Console().print(f"mmsegmentation is skipped: {error}")
        return rows
    count = IoUMetric.intersect_and_union
    hits, _, predicted, true = count(labels, mask, classes, VOID)
    sums = {"hits": (hits, matrix.diagonal()), "true": (true, matrix.sum(1))}
    sums["predicted"] = (predicted, matrix.sum(0))
    for name, (theirs, own) in sums.items():
        if not torch.equal(theirs.long(), own):
            raise SystemExit(f"mmsegmentation returns other counts of {name} pixels than ours")
    return rows | {"mmsegmentation": lambda: count(labels, mask, classes, VOID)}


def metric_rows(labels: Tensor, mask: Tensor, classes: int) -> Rows:
    """Return a row for every metric of conf/metrics/all.yaml."""
    config = yaml.safe_load((CONF_DIR / "metrics" / "all.yaml").read_text())
    prediction = LabelMap(labels, torch.rand(labels.shape))
    metrics = [make(classes) for make in instantiate(config).values()]
    return {m.name: (lambda m=m: m.count(prediction, mask)) for m in metrics}


def measure(rows: Rows, rounds: int) -> dict[str, float]:
    """Measure the milliseconds of every row."""
    for row in rows.values():
        row()
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name in random.sample(list(rows), len(rows)):
            start = time.process_time()
            rows[name]()
            times[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure and print both tables and, with --markdown, write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--markdown", type=Path, help="file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    kinds = [("patchwork", patchwork, k) for k in (19, 150)] + [
        ("noise", noise, k) for k in (19, 150)
    ]
    matrices = {
        f"{name}, {k} classes": measure(confusion_rows(*make(k), k), args.rounds)
        for name, make, k in track(kinds, "confusion matrices", transient=True)
    }
    street_classes = len(SyntheticStreets.class_names)
    cases = [
        ("street", street(0), street_classes),
        ("patchwork, all in place", patchwork(19, 0), 19),
    ]
    costs = {
        f"{name}, {k} classes": measure(metric_rows(*pair, k), args.rounds)
        for name, pair, k in track(cases, "metrics", transient=True)
    }
    for cost in costs.values():
        cost["all"] = sum(cost.values())
    console = Console(width=max(124, Console().width))  # wide enough in a log file too
    note = f"{data.machine()}; 1024x2048, {args.rounds} rounds, milliseconds of CPU time."
    text = [note]
    console.print(note)
    for title, table in (("confusion matrix", matrices), ("metric", costs)):
        names = list(next(iter(table.values())))
        shown = Table(title, *table)
        head = [title, *table]
        text += ["", "| " + " | ".join(head) + " |", "| --- |" + " ---: |" * len(table)]
        for name in names:
            cells = [f"{column[name]:.1f}" for column in table.values()]
            if "ours" in names and name != "ours":
                cells = [
                    f"{c} ({v[name] / v['ours']:.0f}x)"
                    for c, v in zip(cells, table.values(), strict=True)
                ]
            shown.add_row(name, *cells)
            text.append("| " + " | ".join([name, *cells]) + " |")
        console.print(shown)
    if args.markdown:
        args.markdown.write_text("\n".join([*text, ""]))


if __name__ == "__main__":
    main()
