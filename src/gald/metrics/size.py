"""Recall and IoU by the size of objects: are small objects found?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from gald.data.labels import VOID
from gald.metrics.base import Bytes, CountMetric, Curve, mean_of_known, ratio, void_where
from gald.metrics.regions import Regions, find_regions, run_starts
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
        labels = void_where(mask == VOID, labels)
        marks = run_starts(mask), run_starts(labels)
        true, predicted = map(find_regions, (mask, labels), marks)
        # Pieces of a row with one true and one predicted class; all their pixels count alike.
        pieces = np.flatnonzero(marks[0] | marks[1])
        pixels = np.diff(pieces, append=mask.size)
        true_class, true_bin = self._cells(true, pieces, mask.size)
        predicted_class, predicted_bin = self._cells(predicted, pieces, mask.size)
        known, hit = true_class != VOID, true_class == predicted_class
        false = ~hit & (predicted_class != VOID)
        objects = true.classes != VOID
        bin_of_object = self._bins(true.sizes, mask.size)
        return np.stack(
            [
                self._count(true_class, true_bin, pixels, hit & known),
                self._count(true_class, true_bin, pixels, known),
                self._count(predicted_class, predicted_bin, pixels, false),
                self._count(true.classes, bin_of_object, np.ones_like(true.sizes), objects),
            ]
        )

    def _bins(self, sizes: NDArray[np.int64], pixels: int) -> NDArray[np.int64]:
        """Return the bin of each size, for an image of that many pixels."""
        return np.searchsorted(np.array(self.edges) * pixels, sizes)

    def _cells(
        self, regions: Regions, pieces: NDArray[np.int64], pixels: int
    ) -> tuple[Bytes, NDArray[np.int64]]:
        """Return class and bin of the region around each piece, given by its first pixel."""
        run = np.searchsorted(regions.starts, pieces, "right") - 1
        region = regions.region[run]
        return regions.classes[region], self._bins(regions.sizes, pixels)[region]

    def _count(
        self,
        classes: Bytes,
        bins: NDArray[np.int64],
        amounts: NDArray[np.int64],
        counted: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """Sum amounts by class and bin (K, bins)."""
        count = len(self.edges) + 1
        cells = classes[counted].astype(np.int64) * count + bins[counted]
        total = np.bincount(cells, amounts[counted], self.num_classes * count)
        return total.astype(np.int64).reshape(self.num_classes, count)

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
