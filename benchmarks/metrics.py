"""Benchmark of metrics: time per image, and the confusion matrix compared with other libraries.

    make bench-metrics
    make bench-metrics ARGS="--markdown FILE"

Images are uint8 labels of 1024x2048. A patchwork has squares of 32 pixels, each with one class, and
a tenth of them void. Its prediction is shifted by 3 rows and 5 columns, with 5% random pixels (none
for "all in place"). In noise every pixel is random. Streets are gald's synthetic images, and the
prediction is the shifted and smoothed mask. All confusion matrices must be equal before they are
timed. Time is CPU time of the process on one thread; the rows run in turn, in a new random order
every round, and the tables have medians.

The last table is of whole evaluations with every metric. "Before" runs the network in 32 bits and
then one metric after the other, with `PlainObjectSize`. The network has random weights, so the
metrics count shifted streets in the place of its labels. Columns are CPU time and wall time; the
second is worth reading on an idle machine only.
"""

import argparse
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

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
from gald.config import CONF_DIR, compose
from gald.data.labels import VOID
from gald.data.synthetic import SyntheticStreets
from gald.evaluation.evaluator import Evaluator
from gald.inference import FullImage, LabelMap
from gald.inference.precision import Precision
from gald.metrics.base import pair_counts
from gald.metrics.confusion import ConfusionMatrix
from gald.metrics.images import ImageCounts
from gald.metrics.size import ObjectSize
from gald.model.network import Network

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


class PlainObjectSize(ObjectSize):
    """`ObjectSize` with OpenCV's components, class by class: how it was before."""

    def count_arrays(
        self, labels: np.ndarray, mask: np.ndarray, confidence: np.ndarray | None
    ) -> np.ndarray:
        """Count one image; see `ObjectSize`."""
        labels = np.where(mask == VOID, np.uint8(VOID), labels)
        true_bins, objects = self._maps(mask)
        predicted_bins, _ = self._maps(labels)
        wrong = labels != mask
        pairs = (
            pair_counts(np.where(wrong, np.uint8(VOID), mask), true_bins),
            pair_counts(mask, true_bins),
            pair_counts(np.where(wrong, labels, np.uint8(VOID)), predicted_bins),
        )
        shape = objects.shape
        return np.stack([*(pair[: shape[0], : shape[1]] for pair in pairs), objects])

    def _maps(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        edges = np.array(self.edges) * labels.size
        bins = np.zeros(labels.shape, np.uint8)
        objects = np.zeros((self.num_classes, len(edges) + 1), np.int64)
        for index in range(self.num_classes):
            inside = labels == index
            _, components = cv2.connectedComponents(inside.view(np.uint8), connectivity=8)
            sizes = np.bincount(components.ravel())
            bin_of = np.searchsorted(edges, sizes).astype(np.uint8)
            objects[index] = np.bincount(bin_of[1:], minlength=len(edges) + 1)
            np.copyto(bins, bin_of[components], where=inside)
        return bins, objects


def evaluations(threads: int, images: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Measure evaluations with every metric: CPU and wall milliseconds of an image."""
    classes = len(SyntheticStreets.class_names)
    streets = [street(i) for i in range(images)]
    pictures = [SyntheticStreets("val", i + 1, SIZE, 0)[i]["image"][None] for i in range(images)]
    words = ["experiment=camvid_lite0", "model.backbone.weights=null"]
    cfg = compose("train", words)
    old = compose("train", [*words, "model.channels_last=false"])
    torch.manual_seed(0)
    model = instantiate(cfg.model, num_classes=classes).eval()
    plain = instantiate(old.model, num_classes=classes).eval()
    config = dict(instantiate(yaml.safe_load((CONF_DIR / "metrics" / "all.yaml").read_text())))
    names = SyntheticStreets.class_names

    @patch("gald.inference.base.reuse_memory")
    def before(network: Network | None, _: object) -> ImageCounts:
        metrics = [make(classes) for make in (config | {"size": PlainObjectSize}).values()]
        counts = ImageCounts()
        for i, (labels, mask) in enumerate(streets):
            if network is not None:
                FullImage().predict(network, pictures[i], confidence=True)
            prediction = LabelMap(labels, confidence)
            for metric in metrics:
                counts.add(f"{i}", metric.name, metric.count(prediction, mask))
        return counts

    def now(network: Network | None, precision: Precision = None) -> ImageCounts:
        evaluator = Evaluator([make(classes) for make in config.values()], per_image=True)
        for i, (labels, mask) in enumerate(streets):
            if network is not None:
                FullImage(precision=precision).predict(network, pictures[i], confidence=True)
            evaluator.update(LabelMap(labels[None], confidence[None]), mask[None], [f"{i}"])
        evaluator.compute(names)
        return evaluator.images

    confidence = torch.rand(SIZE)
    rows: dict[str, Callable[[], ImageCounts]] = {
        "metrics alone, before": lambda: before(None),
        "metrics alone, now": lambda: now(None),
        "with the network, before": lambda: before(plain),
        "with the network, now": lambda: now(model),
        "with the network, now, inference.precision=bf16": lambda: now(model, "bf16"),
    }
    rows = data.that_this_cpu_can(rows, data.roofline())
    expected = before(None)
    for name in expected.metrics:
        if not np.array_equal(now(None).dense(name), expected.dense(name)):
            raise SystemExit(f"{name} has other counts than before")
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    with torch.no_grad():
        for _ in track(range(rounds), "evaluations", transient=True):
            for name in random.sample(list(rows), len(rows)):
                cpu, wall = in_own_process(rows[name], threads)
                times[name].append((1e3 * cpu / images, 1e3 * wall / images))
    return {
        name: (min(cpu for cpu, _ in pairs), min(wall for _, wall in pairs))
        for name, pairs in times.items()
    }


def in_own_process(row: Callable[[], ImageCounts], threads: int) -> tuple[float, float]:
    """Return CPU and wall seconds of a row, in a process of its own, with memory of its own."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def run() -> None:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        start = time.process_time(), time.perf_counter()
        row()
        there.send((time.process_time() - start[0], time.perf_counter() - start[1]))

    process = context.Process(target=run)
    process.start()
    there.close()  # so that the end of the process is noticed
    spent = here.recv()
    process.join()
    return spent


def evaluation_table(found: dict[str, tuple[float, float]]) -> list[str]:
    """Return lines of markdown, with the ratio to the row before of the same kind."""
    head = ["evaluation", "CPU ms an image", "", "wall ms", ""]
    lines = ["| " + " | ".join(head) + " |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, (cpu, wall) in found.items():
        first = found[name.partition(",")[0] + ", before"]
        cells = [f"{cpu:.0f}", f"{first[0] / cpu:.2f}x", f"{wall:.0f}", f"{first[1] / wall:.2f}x"]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return lines


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
    parser.add_argument("--threads", type=int, default=2, help="threads of whole evaluations")
    parser.add_argument("--images", type=int, default=4, help="images of whole evaluations")
    parser.add_argument("--only-evaluations", action="store_true")
    parser.add_argument("--markdown", type=Path, help="file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    if args.only_evaluations:
        note = f"{data.machine()}; 1024x2048, {args.threads} threads, the least of {args.rounds}."
        text = [note, "", *evaluation_table(evaluations(args.threads, args.images, args.rounds))]
        print("\n".join(text))
        if args.markdown:
            args.markdown.write_text("\n".join([*text, ""]))
        return
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
    lines = evaluation_table(evaluations(args.threads, args.images, args.rounds))
    console.print("\n".join(lines))
    text += ["", f"Whole evaluations, {args.threads} threads, the least of the rounds.", "", *lines]
    if args.markdown:
        args.markdown.write_text("\n".join([*text, ""]))


if __name__ == "__main__":
    main()
