"""Counts the pixels of each class, and turns counts into weights."""

import os
from pathlib import Path

import cv2
import numpy as np

from gald.data.dataset import BaseDataset
from gald.data.labels import UNKNOWN, VOID
from gald.data.reading.files import SampleError
from gald.progress import in_order, say


def class_counts(dataset: BaseDataset, cache_dir: str) -> np.ndarray:
    """Count the pixels of each class in each scene, void left out; see `pixel_counts`.

    Shape:
        returns: (scenes, classes) int64
    """
    return pixel_counts(dataset, cache_dir)[:, :-1]


def pixel_counts(dataset: BaseDataset, cache_dir: str) -> np.ndarray:
    """Count the pixels of each class, and last those of void, in each scene.

    They are kept in `cache_dir/counts`, where a later call finds them as long as no file changes.

    Shape:
        returns: (scenes, classes + 1) int64

    Raises:
        SampleError: a mask that cannot be read, or one with an unknown label.
    """
    path = Path(cache_dir).expanduser() / "counts" / f"{dataset.cache_name()}.npy"
    classes = len(dataset.class_names)
    shape = (len(dataset), classes + 1)
    counts = _find(path, shape)
    if counts is not None:
        return counts

    def count(index: int) -> np.ndarray:
        labels, lut = dataset.labels(index)
        found = np.bincount(cv2.LUT(labels, lut).ravel(), minlength=256)
        if found[UNKNOWN]:
            raise SampleError(dataset.unknown_label(index))
        return found[[*range(classes), VOID]]

    counts = np.zeros(shape, np.int64)
    for index, row in enumerate(in_order(count, range(len(dataset)), "count pixels")):
        counts[index] = row
    _keep(path, counts)
    return counts


def class_weights(counts: np.ndarray) -> np.ndarray:
    """Weights that balance the classes in a loss: median of the frequencies over the frequency.

    The frequency of a class is its share of the labelled pixels of those images that have it. The
    median is over the classes that occur; one that does not gets 0, for no pixel would use it.

    Paper: Eigen, Fergus, "Predicting Depth, Surface Normals and Semantic Labels with a Common
    Multi-Scale Convolutional Architecture", ICCV 2015, https://arxiv.org/abs/1411.4734. It says
    "pixels"; void ones are left out here.

    Shape:
        counts: (scenes, classes)
        returns: (classes,) float64
    """
    pixels = counts.sum(axis=0)
    labelled = ((counts > 0) * counts.sum(axis=1, keepdims=True)).sum(axis=0)
    occurs = pixels > 0
    weights = np.zeros(counts.shape[1])
    if occurs.any():
        frequency = pixels[occurs] / labelled[occurs]
        weights[occurs] = np.median(frequency) / frequency
    return weights


def _find(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """What an earlier call kept, unless it is damaged."""
    try:
        counts = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return counts if (counts.shape, counts.dtype) == (shape, np.int64) else None


def _keep(path: Path, counts: np.ndarray) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                np.save(file, counts, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        say(f"the counts cannot be kept as {path} ({reason}); each run will count again")
