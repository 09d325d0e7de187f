"""What two evaluations left behind, and whether they may be compared at all."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gald.comparison.bootstrap import mean_iou
from gald.evaluation.evaluate import build_metrics
from gald.metrics.base import CountMetric
from gald.metrics.confusion import ConfusionMatrix
from gald.metrics.images import ImageCounts
from gald.run.results import SPLITS, read_results
from gald.run.safe_targets import check_targets

# What both receipts must agree on for a number of one to mean the same as that of the other.
SAME = ("inference", "metrics", "void", "classes_sha256", "images_sha256", "ground_truth_sha256")


class EvaluatedRun(NamedTuple):
    """What one evaluation left.

    Attributes:
        folder: where it lies.
        results: flat keys of results.json.
        receipt: what was measured, on what and with what, see
            `gald.evaluation.evaluate`; may lack anything.
        images: what every image counted.
        class_counts: hits, true and predicted pixels per image and class (N, 3, K).
        class_names: K names.
        metrics: what else was counted, as the receipt defines it.
    """

    folder: Path
    results: dict[str, Any]
    receipt: dict[str, Any]
    images: ImageCounts
    class_counts: np.ndarray
    class_names: tuple[str, ...]
    metrics: list[CountMetric]


def read_pair(folder_a: Path, folder_b: Path, split: str | None) -> tuple[str, list[EvaluatedRun]]:
    """Read two evaluations of one split, the first that both have unless it is named.

    Raises:
        FileNotFoundError: a folder lacks results or per-image counts.
        ValueError: both are one folder, a file is damaged, or the two were not judged on the same
            images, classes and labels in the same way.
    """
    folders = [folder.expanduser().absolute() for folder in (folder_a, folder_b)]
    if folders[0].resolve() == folders[1].resolve():
        raise ValueError(f"{folder_a} is given twice; give two different evaluations")
    common = [s for s in SPLITS if all(_counts_file(folder, s).is_file() for folder in folders)]
    split = split or (common[0] if common else SPLITS[0])
    a, b = (read_run(folder, split) for folder in folders)
    check_pair(a, b, split)
    return split, [a, b]


def _counts_file(folder: Path, split: str) -> Path:
    return folder / f"images_{split}.npz"


def read_run(folder: Path, split: str) -> EvaluatedRun:
    """Read one evaluation.

    Raises:
        FileNotFoundError: the folder lacks results or per-image counts.
        ValueError: a file is damaged.
    """
    path, counts_file = folder / "results.json", _counts_file(folder, split)
    for file in (path, counts_file):
        if not file.is_file():
            raise FileNotFoundError(
                f"there is no {file}; give the folder that gald eval ckpt_path=RUN split={split} "
                "has written"
            )
    results = read_results(path)
    if f"{split}/miou" not in results:
        raise ValueError(f"{path} has no {split}/miou; repeat the evaluation")
    stated = results[f"{split}/miou"]
    images = ImageCounts.load(counts_file)
    counts = images.class_counts()
    prefix = f"{split}/iou/"
    names = tuple(key.removeprefix(prefix) for key in results if key.startswith(prefix))
    if len(names) != counts.shape[-1]:
        raise ValueError(
            f"{path} names {len(names)} classes, {counts_file.name} counts {counts.shape[-1]}; "
            "repeat the evaluation"
        )
    counted = float(mean_iou(counts.sum(0)))
    if stated is None or abs(stated - counted) > 1e-9:
        raise ValueError(
            f"{path} states a mIoU of {stated}, but {counts_file.name} adds up to {counted:.6f}; "
            "they are of different evaluations, repeat one"
        )
    receipt = results.get(f"{split}/receipt") or {}
    return EvaluatedRun(
        folder, results, receipt, images, counts, names, _metrics(receipt, len(names))
    )


def _metrics(receipt: dict[str, Any], num_classes: int) -> list[CountMetric]:
    """What was counted, the confusion matrix first, which every evaluation has."""
    config = receipt.get("metrics") or {}
    check_targets(config)
    metrics = build_metrics(config, num_classes)
    others = [metric for metric in metrics if metric.name != ConfusionMatrix.name]
    return [ConfusionMatrix(num_classes), *others]


def check_pair(a: EvaluatedRun, b: EvaluatedRun, split: str) -> None:
    """See that two runs were judged on the same images, classes and labels in the same way.

    Raises:
        ValueError: they were not; the first difference is named.
    """
    if a.class_names != b.class_names:
        odd = sorted(set(a.class_names) ^ set(b.class_names)) or ["the order"]
        raise ValueError(
            f"{a.folder} has {len(a.class_names)} classes and {b.folder} {len(b.class_names)} "
            f"({', '.join(odd[:3])} differs); compare networks of the same classes"
        )
    if a.images.names != b.images.names:
        shared = len(set(a.images.names) & set(b.images.names))
        raise ValueError(
            f"{a.folder} was judged on {len(a.images.names)} images of {split} and {b.folder} on "
            f"{len(b.images.names)}, {shared} of them shared; judge both on the same images"
        )
    for key in SAME:
        if key not in a.receipt or key not in b.receipt or a.receipt[key] == b.receipt[key]:
            continue
        place, one, other = _first_difference(key, a.receipt[key], b.receipt[key])
        raise ValueError(
            f"{a.folder} was judged with {place} = {one} and {b.folder} with {other}; evaluate "
            "both in the same way"
        )
    changed = np.flatnonzero((a.class_counts[:, 1] != b.class_counts[:, 1]).any(1))
    if len(changed):
        image, of = a.images.names[changed[0]], len(a.images.names)
        raise ValueError(
            f"the true classes of {len(changed)} of {of} images differ between {a.folder} and "
            f"{b.folder}, {image} is the first; judge both on the same masks"
        )


def _first_difference(place: str, one: object, other: object) -> tuple[str, object, object]:
    """Where two nested values differ first, and how."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            if one.get(key) != other.get(key):
                return _first_difference(f"{place}.{key}", one.get(key), other.get(key))
    return place, one, other
