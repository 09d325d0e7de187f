"""Recall and IoU by the size of objects: are small things found?"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from gald.data.labels import VOID
from gald.metrics.base import Bytes, CountMetric, Curve, pair_counts

SIZES = "largest size, of the image's pixels"


class ObjectSize(CountMetric):
    """Recall and IoU of the pixels of small, medium and large objects.

    An object is a connected region of one class (eight neighbours), its size a share of the image's
    pixels, so that bins mean the same at every resolution. Recall of a bin is the share of its true
    objects' pixels that are hit. A false pixel belongs to the bin of the predicted object that it
    is part of, so hits, misses and false pixels add up over the bins to those of the whole; the IoU
    of a bin is hits / (hits + misses + false). Both are means over the classes that a bin has.
    Predictions on void are taken for void.

    Args:
        num_classes: classes that are scored.
        edges: largest sizes of all bins but the last, rising.

    Shape:
        counts: 4 * K * bins: hit pixels, true pixels, false pixels, true objects
    """

    name = "size"
    label = "small objects"
    curves = (
        Curve("size/recall/", "Recall by size of the object", SIZES),
        Curve("size/iou/", "IoU by size of the object", SIZES),
    )
    headlines = ("size/recall/to_0.1%",)
    facts = ("size/objects/",)

    def __init__(self, num_classes: int, edges: Sequence[float] = (1e-4, 1e-3, 1e-2)) -> None:
        if any(not 0 < edge < 1 for edge in edges) or sorted(set(edges)) != list(edges):
            shown = ", ".join(f"{edge:g}" for edge in edges)
            raise ValueError(f"edges are {shown}; choose rising shares of the image from 0 to 1")
        super().__init__(num_classes, 4 * num_classes * (len(edges) + 1))
        self.edges = tuple(edges)

    @override
    def place_label(self, place: str) -> str:
        return f"bin up to {place.removeprefix('to_')}"

    @override
    def count_arrays(
        self, labels: Bytes, mask: Bytes, confidence: NDArray[np.float32] | None
    ) -> NDArray[np.int64]:
        labels = np.where(mask == VOID, np.uint8(VOID), labels)
        true_bins, objects = self._bins(mask)
        predicted_bins, _ = self._bins(labels)
        wrong = labels != mask
        pairs = (
            pair_counts(np.where(wrong, np.uint8(VOID), mask), true_bins),
            pair_counts(mask, true_bins),
            pair_counts(np.where(wrong, labels, np.uint8(VOID)), predicted_bins),
        )
        shape = objects.shape
        return np.stack([*(pair[: shape[0], : shape[1]] for pair in pairs), objects])

    def _bins(self, labels: Bytes) -> tuple[Bytes, NDArray[np.int64]]:
        """The bin of each pixel's object (H, W), and objects by class and bin (K, bins)."""
        edges = np.array(self.edges) * labels.size
        bins = np.zeros(labels.shape, np.uint8)
        objects = np.zeros((self.num_classes, len(edges) + 1), np.int64)
        present = np.flatnonzero(pair_counts(labels, labels).diagonal()[: self.num_classes])
        for index in present.tolist():
            everywhere = labels == index
            x, y, width, height = cv2.boundingRect(everywhere.view(np.uint8))
            box = slice(y, y + height), slice(x, x + width)
            inside = np.ascontiguousarray(everywhere[box])
            _, found = cv2.connectedComponents(inside.view(np.uint8), connectivity=8)
            parts = found.astype(np.int32, copy=False)
            sizes = np.bincount(parts.ravel())
            of_part = np.searchsorted(edges, sizes).astype(np.uint8)
            objects[index] = np.bincount(of_part[1:], minlength=len(edges) + 1)
            np.copyto(bins[box], of_part[parts], where=inside)
        return bins, objects

    @override
    def scores(self, counts: Tensor, class_names: Sequence[str]) -> dict[str, float]:
        hits, true, false, objects = counts.reshape(4, self.num_classes, -1).double()
        names = [f"to_{100 * edge:g}%" for edge in (*self.edges, 1.0)]
        recall, iou = (hits / true).nanmean(0), (hits / (true + false)).nanmean(0)
        result = {}
        for i, name in enumerate(names):
            result[f"size/recall/{name}"] = float(recall[i])
            result[f"size/iou/{name}"] = float(iou[i])
            result[f"size/objects/{name}"] = int(objects[:, i].sum())
        return result
