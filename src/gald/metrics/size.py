"""Recall and IoU by the size of objects: are small objects found?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from gald.data.labels import VOID
from gald.metrics.base import (
    Bytes,
    CountMetric,
    Curve,
    mean_of_known,
    pair_counts,
    ratio,
)
from gald.options.ranges import Parts

if TYPE_CHECKING:
    from torch import Tensor

SIZES = "largest size, share of the image's pixels"


class ObjectSize(CountMetric):
    """Recall and IoU of the pixels of small, medium and large objects.

    An object is a connected region of one class (eight neighbours). Its size is a share of the
    image's pixels, so bins mean the same at every resolution. The recall of a bin is the share of
    its true objects' pixels that are predicted correctly. A false pixel belongs to the bin of the
    predicted object that contains it, so hits, misses and false pixels of all bins add up to those
    of the whole image. The IoU of a bin is hits / (hits + misses + false). Both scores are means
    over the classes in the bin. Predictions on void are treated as void.

    Args:
        num_classes: number of scored classes, K.
        edges: largest sizes of all bins but the last, in increasing order.

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

    def __init__(self, num_classes: int, edges: Parts = (1e-4, 1e-3, 1e-2)) -> None:
        if any(not 0 < edge < 1 for edge in edges) or sorted(set(edges)) != list(edges):
            shown = ", ".join(f"{edge:g}" for edge in edges)
            raise ValueError(
                f"edges are {shown}; choose increasing shares of the image between 0 and 1"
            )
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
        """Return the bin of each pixel's object (H, W), and objects per class and bin (K, bins)."""
        edges = np.array(self.edges) * labels.size
        bins = np.zeros(labels.shape, np.uint8)
        objects = np.zeros((self.num_classes, len(edges) + 1), np.int64)
        present = np.flatnonzero(pair_counts(labels, labels).diagonal()[: self.num_classes])
        for index in present.tolist():
            of_class = labels == index
            x, y, width, height = cv2.boundingRect(of_class.view(np.uint8))
            box = slice(y, y + height), slice(x, x + width)
            inside = np.ascontiguousarray(of_class[box])
            _, components = cv2.connectedComponents(inside.view(np.uint8), connectivity=8)
            components = components.astype(np.int32, copy=False)
            sizes = np.bincount(components.ravel())
            bin_of = np.searchsorted(edges, sizes).astype(np.uint8)
            objects[index] = np.bincount(bin_of[1:], minlength=len(edges) + 1)
            np.copyto(bins[box], bin_of[components], where=inside)
        return bins, objects

    @override
    def places(self, key: str) -> NDArray[np.intp]:
        by_bin = np.arange(self.width).reshape(4, self.num_classes, -1)
        return by_bin[..., self._bin_names.index(key.rpartition("/")[2])].ravel()

    @property
    def _bin_names(self) -> list[str]:
        return [f"to_{100 * edge:g}%" for edge in (*self.edges, 1.0)]

    @override
    def scores(self, counts: "Tensor", class_names: Sequence[str]) -> dict[str, float]:
        hits, true, false, objects = counts.reshape(4, self.num_classes, -1).double()
        recall, iou = (hits / true).nanmean(0), (hits / (true + false)).nanmean(0)
        result = {}
        for i, name in enumerate(self._bin_names):
            result[f"size/recall/{name}"] = float(recall[i])
            result[f"size/iou/{name}"] = float(iou[i])
            result[f"size/objects/{name}"] = int(objects[:, i].sum())
        return result

    @override
    def scores_of_sets(
        self, sums: NDArray, class_names: Sequence[str]
    ) -> dict[str, NDArray[np.float64]]:
        table = sums.reshape(len(sums), 4, self.num_classes, -1).astype(np.float64)
        hits, true, false, objects = table.swapaxes(0, 1)  # (S, K, bins)
        recall = mean_of_known(ratio(hits, true), 1)
        iou = mean_of_known(ratio(hits, true + false), 1)
        result = {}
        for i, name in enumerate(self._bin_names):
            result[f"size/recall/{name}"] = recall[:, i]
            result[f"size/iou/{name}"] = iou[:, i]
            result[f"size/objects/{name}"] = objects[..., i].sum(1)
        return result

    @override
    def true_classes_only(self, sums: NDArray) -> NDArray:
        table = sums.reshape(len(sums), 4, self.num_classes, -1)
        return np.where(table[:, 1:2] > 0, table, 0).reshape(sums.shape)
