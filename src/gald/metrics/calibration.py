"""Calibration: is a network that is 80% sure right in 80% of the cases?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from gald.data.labels import VOID
from gald.metrics.base import Bytes, CountMetric

_ONE = 2**15  # a probability of 1 in fixed point: whole numbers add up the same in any order


class CalibrationError(CountMetric):
    """Expected calibration error of the pixels: the mean gap between confidence and accuracy.

    Pixels are put in equal bins of confidence; ece = sum over bins of n_bin / n * |accuracy_bin -
    mean confidence_bin|. A bin holds its upper edge. Confidences are rounded to 2^-15.

    Paper: "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599, Eq. 3

    Args:
        num_classes: classes that are scored.
        bins: bins of confidence from 0 to 1.

    Shape:
        counts: 3 * bins: pixels, right ones among them, sum of confidences in units of 2^-15
    """

    name = "ece"
    label = "calibration error"
    higher_is_better = False
    needs_confidence = True

    def __init__(self, num_classes: int, bins: int = 15) -> None:
        super().__init__(num_classes, 3 * bins)
        self.bins = bins

    @override
    def count_arrays(
        self, labels: Bytes, mask: Bytes, confidence: NDArray[np.float32] | None
    ) -> NDArray[np.int64]:
        if confidence is None:
            raise ValueError("the metric ece needs confidences; predict with confidence=True")
        levels = np.rint(np.clip(confidence, 0, 1) * np.float32(_ONE)).astype(np.int32)
        # Three histograms of levels in one: wrong, right and void pixels.
        verdict = np.where(mask == VOID, np.uint8(2), (labels == mask).view(np.uint8))
        index = levels + verdict.astype(np.int32) * (_ONE + 1)
        wrong, right, _ = np.bincount(index.ravel(), minlength=3 * (_ONE + 1)).reshape(3, -1)
        level = np.arange(_ONE + 1)
        of_level = np.maximum(-(-level * self.bins // _ONE) - 1, 0)
        return np.stack(
            [
                np.bincount(of_level, weights, minlength=self.bins).astype(np.int64)
                for weights in (wrong + right, right, (wrong + right) * level)
            ]
        )

    @override
    def scores(self, counts: Tensor, class_names: Sequence[str]) -> dict[str, float]:
        pixels, right, sure = counts.reshape(3, self.bins).double()
        return {"ece": float((right - sure / _ONE).abs().sum() / pixels.sum())}
