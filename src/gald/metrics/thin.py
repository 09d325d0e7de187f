"""IoU of the classes that are thin: poles, signs, fences, whatever a dataset has of the kind."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from gald.metrics.base import Bytes, CountMetric, named, pair_counts
from gald.metrics.contour import contour, diagonal


class ThinClasses(CountMetric):
    """Mean IoU over the classes whose true regions are thin on average.

    No list of names, so that it works on any data: the mean width of a class is twice its area over
    the length of its contour (a bar of width w and length l has area w*l and contour 2*l), in
    shares of the image's diagonal, over all images that are judged. Which classes count as thin
    hence depends on the true masks alone, and two networks judged on the same images have the same.
    On every split of CamVid these are Pole, SignSymbol and Pedestrian.

    Args:
        num_classes: classes that are scored.
        max_width: largest mean width of a thin class, as a share of the diagonal.

    Shape:
        counts: 4 * K: hit pixels, true ones, predicted ones; contour pixels times the diagonal
    """

    name = "thin"
    label = "thin classes"
    headlines = ("thin/miou",)
    facts = ("thin/classes", "thin/width/")

    def __init__(self, num_classes: int, max_width: float = 0.0175) -> None:
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
    def scores(self, counts: Tensor, class_names: Sequence[str]) -> dict[str, float]:
        hits, true, predicted, length = counts.reshape(4, self.num_classes).double()
        width = 2 * true / length
        thin = width <= self.max_width  # neither a class without pixels nor one without contour
        iou = (hits / (true + predicted - hits))[thin]
        return {
            "thin/miou": float(torch.nanmean(iou)) if bool(thin.any()) else math.nan,
            "thin/classes": int(thin.sum()),
            **named("thin/width", class_names, width),
        }
