"""Pixel counts per class, and loss weights from them."""

import io
from pathlib import Path

import cv2
import numpy as np

from gald.data.dataset import BaseDataset
from gald.data.labels import UNKNOWN, VOID
from gald.data.reading.sample_error import SampleError
from gald.progress import in_order, say
from gald.run.atomic import write_bytes
from gald.run.checksum import find_damage, seal


def class_counts(dataset: BaseDataset, cache_dir: str) -> np.ndarray:
    """Count the pixels of each class in each sample, without void; see `pixel_counts`.

    Shape:
        returns: (samples, classes) int64
    """
    return pixel_counts(dataset, cache_dir)[:, :-1]


def pixel_counts(dataset: BaseDataset, cache_dir: str) -> np.ndarray:
    """Count the pixels of each class, with void last, in each sample.

    The counts are cached in `cache_dir/counts` and reused until a file of the dataset changes.

    Shape:
        returns: (samples, classes + 1) int64

    Raises:
        SampleError: a mask cannot be read or has an unknown label.
    """
    path = Path(cache_dir).expanduser() / "counts" / f"{dataset.cache_name()}.npy"
    classes = len(dataset.class_names)
    shape = (len(dataset), classes + 1)
    counts = _load(path, shape)
    if counts is not None:
        return counts

    def count(index: int) -> np.ndarray:
        labels, lut = dataset.labels(index)
        pixels = np.bincount(cv2.LUT(labels, lut).ravel(), minlength=256)
        if pixels[UNKNOWN]:
            raise SampleError(dataset.unknown_label(index))
        return pixels[[*range(classes), VOID]]

    counts = np.zeros(shape, np.int64)
    for index, row in enumerate(in_order(count, range(len(dataset)), "count pixels")):
        counts[index] = row
    _save(path, counts)
    return counts


def class_weights(counts: np.ndarray) -> np.ndarray:
    """Compute loss weights by median frequency balancing: median frequency / frequency.

    The frequency of a class is its fraction of the labelled pixels of the images that contain it.
    The median is over the classes that occur; other classes get weight 0, because no pixel would
    use it.

    Paper: Eigen, Fergus, "Predicting Depth, Surface Normals and Semantic Labels with a Common
    Multi-Scale Convolutional Architecture", ICCV 2015, https://arxiv.org/abs/1411.4734. The paper
    counts "pixels"; here void pixels are left out.

    Shape:
        counts: (samples, classes)
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


def _load(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """Return the counts that an earlier call saved, or None if there are none or damaged ones."""
    try:
        if find_damage(path):
            return None
        counts = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return counts if (counts.shape, counts.dtype) == (shape, np.int64) else None


def _save(path: Path, counts: np.ndarray) -> None:
    content = io.BytesIO()
    np.save(content, counts, allow_pickle=False)
    seal(content)
    try:
        write_bytes(path, content.getbuffer())
    except OSError as error:
        reason = error.strerror or error
        say(f"cannot save the class counts as {path} ({reason}); each run will count again")
