"""Reading of evaluations from run folders, and the check that two of them are comparable."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gald.comparison.bootstrap import mean_iou
from gald.metrics.base import CountMetric
from gald.metrics.confusion import ConfusionMatrix
from gald.metrics.images import ImageCounts
from gald.run.building import build_metrics, check
from gald.run.plain import RefusedError
from gald.run.results import SPLITS, read_results
from gald.run.zoo import find_folder

# Keys that must be equal in both receipts; otherwise the scores have different meanings.
SAME = ("inference", "metrics", "void", "classes_sha256", "images_sha256", "ground_truth_sha256")


class EvaluatedRun(NamedTuple):
    """Evaluation as read from a run folder.

    Attributes:
        folder: the run folder.
        results: flat keys of results.json.
        receipt: what was measured, on which data and with which settings, see
            `gald.evaluation.evaluate`; any key may be missing.
        images: counts of every image.
        class_counts: hits, true and predicted pixels per image and class (N, 3, K).
        class_names: K names.
        metrics: all metrics of the evaluation as defined in the receipt, ConfusionMatrix first.
    """

    folder: Path
    results: dict[str, Any]
    receipt: dict[str, Any]
    images: ImageCounts
    class_counts: np.ndarray
    class_names: tuple[str, ...]
    metrics: list[CountMetric]


def read_pair(
    folder_a: Path, folder_b: Path, split: str | None, trust: Sequence[str] = ()
) -> tuple[str, list[EvaluatedRun]]:
    """Read two evaluations of one split; the default is the first split that both have.

    A folder is given by its path, or by the name of a network of the zoo. Metrics of the packages
    in `trust` are read too.

    Raises:
        FileNotFoundError: a folder has no results or no per-image counts.
        ValueError: both are one folder, a file is damaged, or the two evaluations differ in
            images, classes, labels or settings.
        RefusedError: a receipt would call other code.
    """
    folders = [find_folder(folder) for folder in (folder_a, folder_b)]
    if folders[0].resolve() == folders[1].resolve():
        raise ValueError(f"{folder_a} is given twice; give two different evaluations")
    common = [s for s in SPLITS if all(_counts_file(folder, s).is_file() for folder in folders)]
    split = split or (common[0] if common else SPLITS[0])
    a, b = (read_run(folder, split, trust) for folder in folders)
    for run in (a, b):
        _refuse_other_code(run, trust)
    check_pair(a, b, split)
    return split, [a, b]


def _refuse_other_code(run: EvaluatedRun, trust: Sequence[str]) -> None:
    """Refuse a receipt that calls code before anything is computed from it."""
    for part in ("data", "inference"):
        if part in run.receipt:
            try:
                check(part, run.receipt[part], run.folder / "results.json", trust)
            except RefusedError:
                raise
            except ValueError:  # of another version of gald; it only leaves out the images
                continue


def _counts_file(folder: Path, split: str) -> Path:
    return folder / f"images_{split}.npz"


def read_run(
    folder: Path,
    split: str,
    trust: Sequence[str] = (),
    metrics: Sequence[CountMetric] | None = None,
) -> EvaluatedRun:
    """Read one evaluation, with metrics of gald and of the packages in `trust`.

    Args:
        folder: the folder of the evaluation.
        split: `val` or `test`.
        trust: packages with metrics that the receipt may name too.
        metrics: the metrics, if they exist already; None builds those of the receipt.

    Raises:
        FileNotFoundError: the folder has no results or no per-image counts.
        ValueError: a file is damaged.
        RefusedError: the receipt would call other code.
    """
    path, counts_file = folder / "results.json", _counts_file(folder, split)
    for file in (path, counts_file):
        if not file.is_file():
            raise FileNotFoundError(
                f"there is no {file}; give a folder written by "
                f"gald eval ckpt_path=RUN split={split}"
            )
    results = read_results(path)
    if f"{split}/miou" not in results:
        raise ValueError(f"{path} has no {split}/miou; repeat the evaluation")
    stored = results[f"{split}/miou"]
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
    if stored is None or abs(stored - counted) > 1e-9:
        raise ValueError(
            f"{path} has a mIoU of {stored}, but {counts_file.name} gives {counted:.6f}; they are "
            "from different evaluations, so repeat the evaluation"
        )
    receipt = results.get(f"{split}/receipt") or {}
    if metrics is None:
        metrics = build_metrics(receipt.get("metrics"), len(names), path, trust)
    return EvaluatedRun(
        folder, results, receipt, images, counts, names, _in_order(metrics, len(names))
    )


def _in_order(metrics: Sequence[CountMetric], num_classes: int) -> list[CountMetric]:
    """Put the confusion matrix, which always exists, in front."""
    others = [metric for metric in metrics if metric.name != ConfusionMatrix.name]
    return [ConfusionMatrix(num_classes), *others]


def check_pair(a: EvaluatedRun, b: EvaluatedRun, split: str) -> None:
    """Check that two runs have the same images, classes, labels and evaluation settings.

    Raises:
        ValueError: they do not; the message names the first difference.
    """
    if a.class_names != b.class_names:
        unequal = sorted(set(a.class_names) ^ set(b.class_names)) or ["the order"]
        raise ValueError(
            f"{a.folder} has {len(a.class_names)} classes and {b.folder} has {len(b.class_names)} "
            f"({', '.join(unequal[:3])} differs); compare networks with the same classes"
        )
    if a.images.names != b.images.names:
        shared = len(set(a.images.names) & set(b.images.names))
        raise ValueError(
            f"{a.folder} was evaluated on {len(a.images.names)} images of {split} and {b.folder} "
            f"on {len(b.images.names)}, with {shared} in common; evaluate both on the same images"
        )
    for key in SAME:
        if key not in a.receipt or key not in b.receipt:
            continue
        settings = _known(a.receipt[key]), _known(b.receipt[key])
        if settings[0] == settings[1]:
            continue
        place, one, other = _first_difference(key, *settings)
        raise ValueError(
            f"{a.folder} was evaluated with {place} = {one} and {b.folder} with {other}; evaluate "
            "both with the same settings"
        )
    if a.images.groups and b.images.groups and a.images.groups != b.images.groups:
        pairs = zip(a.images.names, a.images.groups, b.images.groups, strict=True)
        image, one, other = next(pair for pair in pairs if pair[1] != pair[2])
        raise ValueError(
            f"{a.folder} has {image} of {split} in group {one} and {b.folder} has it in {other}; "
            "evaluate both with the same data.groups"
        )
    changed = np.flatnonzero((a.class_counts[:, 1] != b.class_counts[:, 1]).any(1))
    if len(changed):
        image, total = a.images.names[changed[0]], len(a.images.names)
        raise ValueError(
            f"the true classes of {len(changed)} of {total} images differ between {a.folder} and "
            f"{b.folder}, first in {image}; evaluate both on the same masks"
        )


def _known(value: object) -> object:
    """Return nested values without those that are null: an earlier version does not have them."""
    if isinstance(value, dict):
        return {key: _known(part) for key, part in value.items() if part is not None}
    return value


def groups_of(runs: Iterable[EvaluatedRun]) -> tuple[str, ...] | None:
    """Return the group of each image, from the first run that has groups; None if none has."""
    return next((run.images.groups for run in runs if run.images.groups is not None), None)


def _first_difference(place: str, one: object, other: object) -> tuple[str, object, object]:
    """Return the key of the first difference between nested values, and both values there."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            if one.get(key) != other.get(key):
                return _first_difference(f"{place}.{key}", one.get(key), other.get(key))
    return place, one, other
