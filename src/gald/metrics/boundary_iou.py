"""Boundary IoU: agreement of masks near their contours, which has little effect on the mIoU."""

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
    columns,
    mean_of_known,
    named,
    pair_counts,
    ratio,
    void_where,
)
from gald.metrics.contour import (
    WIDTHS,
    check_widths,
    contour,
    diagonal,
    width_index,
    width_label,
)
from gald.options.ranges import Positives

if TYPE_CHECKING:
    from torch import Tensor


class BoundaryIoU(CountMetric):
    """IoU of each class's pixels within a width of a contour, for several widths.

    For class c, G_d are its true pixels at most d - 1 steps from a contour pixel of the true mask,
    and P_d are the same for the prediction. A contour pixel has a label, and a pixel of another
    class among its eight neighbours or a place at the edge of the image. The score of a class is
    |G_d & P_d| / |G_d | P_d| with both counts summed over images; the score is the mean over
    classes. Steps may be diagonal (chessboard distance); a share of the diagonal is rounded.

    Without void G_d are the pixels of c at most d steps from another class or from the outside of
    the image, as in the published code, which erodes the padded mask of each class d times. Next to
    void they differ. Void is no class here: it makes no contour and predictions on it are void too,
    but steps lead across it, to the contour of any two classes. So of two classes with void between
    them neither has a band there. For the published code void is one more class: each class has a
    band along it. With two halves of 15x10 pixels, the first column of the second one void and
    d = 3, the first half has 87 pixels in its band here, 114 in the published code, and 105 are at
    most 3 steps from another class or the outside. On CamVid's test set, for the predictions of
    zoo/camvid_lite0, the published code is 1.0, 1.5, 2.1 and 3.3 points lower than this score at
    widths 1, 3, 5 and 0.02 if predictions on void count, and 5.9, 6.3, 5.9 and 4.1 points higher
    if they are void as well.

    Paper: "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation",
    https://arxiv.org/abs/2103.16562; its width is 2% of the diagonal, 0.5% on Cityscapes.
    Reference: bowenc0221/boundary-iou-api, boundary_iou/utils/boundary_utils.py; equal where
    nothing is void.

    Args:
        num_classes: number of scored classes, K.
        widths: 1 or more: in pixels; below 1: as a share of the image's diagonal.

    Shape:
        counts: widths * 3 * K: pixels in both bands, in the true band, in the predicted band
    """

    name = "boundary_iou"
    label = "boundary IoU"
    curves = (Curve("boundary_iou/", "Boundary IoU", WIDTHS),)
    headlines = ("boundary_iou/0.02", "boundary_iou/3")
    place_label = staticmethod(width_label)

    def __init__(self, num_classes: int, widths: Positives = (1, 3, 5, 0.005, 0.02)) -> None:
        super().__init__(num_classes, len(widths) * 3 * num_classes)
        self.widths = check_widths(widths)

    @override
    def count_arrays(
        self, labels: Bytes, mask: Bytes, confidence: NDArray[np.float32] | None
    ) -> NDArray[np.int64]:
        labels = void_where(mask == VOID, labels)
        long = diagonal(mask.shape)
        pixels = [max(1, round(w * long)) if w < 1 else int(w) for w in self.widths]
        order = np.argsort(pixels, kind="stable")
        true, predicted = (self._bins(x, sorted(pixels)) for x in (mask, labels))
        both = void_where(mask != labels, mask)
        bins = len(pixels)
        counts = np.zeros((bins, 3, self.num_classes), np.int64)
        triples = ((both, np.maximum(true, predicted)), (mask, true), (labels, predicted))
        for column, (classes, beyond) in enumerate(triples):
            by_bin = pair_counts(beyond, classes)[:bins, : self.num_classes]
            counts[order, column] = by_bin.cumsum(0)
        return counts

    @staticmethod
    def _bins(labels: Bytes, pixels: list[int]) -> Bytes:
        """Count per pixel the widths that are too small to reach it from the nearest contour."""
        near = contour(labels, edge=True).view(np.uint8)
        beyond = np.full(labels.shape, len(pixels), np.uint8)
        reach = 1
        for width in pixels:
            if width > reach:  # the pixels at most n moves of a king away form a square
                side = 2 * min(width - reach, max(labels.shape)) + 1
                near = cv2.dilate(near, cv2.getStructuringElement(cv2.MORPH_RECT, (side, side)))
                reach = width
            beyond -= near.astype(np.uint8, copy=False)
        return beyond

    @override
    def places(self, key: str) -> NDArray[np.intp]:
        by_width = np.arange(self.width).reshape(len(self.widths), -1)
        return by_width[width_index(self.widths, key)]

    @override
    def scores(self, counts: "Tensor", class_names: Sequence[str]) -> dict[str, float]:
        table = counts.reshape(len(self.widths), 3, self.num_classes).double()
        result = {}
        for width, (both, true, predicted) in zip(self.widths, table, strict=True):
            per_class = both / (true + predicted - both)
            key = f"boundary_iou/{width:g}"
            result[key] = float(per_class.nanmean())
            result |= named(key, class_names, per_class)
        return result

    @override
    def scores_of_sets(
        self, sums: NDArray, class_names: Sequence[str]
    ) -> dict[str, NDArray[np.float64]]:
        table = sums.reshape(len(sums), len(self.widths), 3, self.num_classes).astype(np.float64)
        both, true, predicted = np.moveaxis(table, 2, 0)  # (S, widths, K)
        per_class = ratio(both, true + predicted - both)
        means = mean_of_known(per_class)
        result = {}
        for i, width in enumerate(self.widths):
            key = f"boundary_iou/{width:g}"
            result[key] = means[:, i]
            result |= columns(key, class_names, per_class[:, i])
        return result

    @override
    def true_classes_only(self, sums: NDArray) -> NDArray:
        table = sums.reshape(len(sums), len(self.widths), 3, self.num_classes)
        return np.where(table[:, :, 1:2] > 0, table, 0).reshape(sums.shape)
