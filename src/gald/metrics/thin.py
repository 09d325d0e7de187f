"""IoU of thin classes, such as poles, signs and fences."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from gald.metrics.base import (
    Bytes,
    CountMetric,
    columns,
    mean_of_known,
    named,
    pair_counts,
    ratio,
)
from gald.metrics.contour import contour, diagonal
from gald.options.ranges import Positive

if TYPE_CHECKING:
    from torch import Tensor


class ThinClasses(CountMetric):
    """Mean IoU over the classes with true regions that are thin on average.

    Thin classes are found by their width instead of a list of names, so the metric works on any
    data. The mean width of a class is twice its area over the length of its contour (a bar of width
    w and length l has area w*l and contour 2*l), as a share of the image's diagonal, over all
    evaluated images. So the thin classes depend only on the true masks, and are the same for two
    networks evaluated on the same images. On every split of CamVid they are Pole, SignSymbol and
    Pedestrian.

    Args:
        num_classes: number of scored classes, K.
        max_width: largest mean width of a thin class, as a share of the diagonal.

    Shape:
        counts: 4 * K: hit, true and predicted pixels; contour pixels times the diagonal
    """

    name = "thin"
    label = "thin classes"
    headlines = ("thin/miou",)
    facts = ("thin/classes", "thin/width/")

    def __init__(self, num_classes: int, max_width: Positive = 0.0175) -> None:
        super().__init__(num_classes, 4 * num_classes)
        self.max_width = max_width

    @override
    def count_arrays(
        self, labels: Bytes, mask: Bytes, confidence: NDArray[np.float32] | None
    ) -> NDArray[np.int64]:
        pairs = pair_counts(mask, labels)[: self.num_classes, : self.num_classes]
        length = pair_counts(mask, contour(mask).view(np.uint8))[: self.num_classes, 1]
        long = round(diagonal(mask.shape))
        return np.stack([pairs.diagonal(), pairs.sum(1), pairs.sum(0), length * long])

    @override
    def scores(self, counts: "Tensor", class_names: Sequence[str]) -> dict[str, float]:
        hits, true, predicted, length = counts.reshape(4, self.num_classes).double()
        width = 2 * true / length
        thin = width <= self.max_width  # width is nan without pixels and inf without contour
        iou = (hits / (true + predicted - hits))[thin]
        return {
            "thin/miou": float(iou.nanmean()) if bool(thin.any()) else math.nan,
            "thin/classes": int(thin.sum()),
            **named("thin/width", class_names, width),
        }

    @override
    def scores_of_sets(
        self, sums: NDArray, class_names: Sequence[str]
    ) -> dict[str, NDArray[np.float64]]:
        table = sums.reshape(len(sums), 4, self.num_classes).astype(np.float64)
        hits, true, predicted, length = table.swapaxes(0, 1)
        with np.errstate(divide="ignore"):
            width = ratio(2 * true, length)
        thin = width <= self.max_width
        iou = np.where(thin, ratio(hits, true + predicted - hits), np.nan)
        return {
            "thin/miou": mean_of_known(iou),
            "thin/classes": thin.sum(-1).astype(np.float64),
            **columns("thin/width", class_names, width),
        }
